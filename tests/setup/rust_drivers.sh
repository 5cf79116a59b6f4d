#!/usr/bin/env bash
# sqlx and tokio-postgres: programs of this workspace. Built together with the rest, so that what they share
# with gatepost is compiled once.
set -euo pipefail
. "$(dirname "$0")/places.sh"

cd "$repository"
cargo build --quiet --workspace --bin sqlx_matrix --bin tokio_postgres_matrix ||
    fail "the programs of sqlx and tokio-postgres could not be built"
say "rust drivers: $(cargo tree --package rust_drivers --depth 1 --prefix none |
    sed -n 's/^\(sqlx\|tokio-postgres\) v\([^ ]*\).*/\1 \2/p' | paste -sd, | sed 's/,/ · /')"
