#!/usr/bin/env bash
# sqlx, tokio-postgres, tiberius and mssql-tds: programs of this workspace. Built together with the rest, so that what
# they share with gatepost is compiled once. What mssql-tds needs of OpenSSL comes with compiler.sh.
set -euo pipefail
. "$(dirname "$0")/places.sh"

cd "$repository"
[ -n "${GATEPOST_BUILT:-}" ] || cargo build --quiet --workspace --bin sqlx_matrix --bin tokio_postgres_matrix \
    --bin tiberius_sqlserver --bin mssql_tds_sqlserver || fail "the programs of the Rust drivers could not be built"
say "rust drivers: $(cargo tree --package rust_drivers --package mssql_tds_driver --depth 1 --prefix none |
    sed -n 's/^\(sqlx\|tokio-postgres\|tiberius\|mssql-tds\) v\([^ ]*\).*/\1 \2/p' | paste -sd, | sed 's/,/ · /g')"
