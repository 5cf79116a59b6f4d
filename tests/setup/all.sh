#!/usr/bin/env bash
# Brings everything that the tests need beside Rust; seconds when it is here already.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
for part in postgres nats oidc_provider drivers; do
    "$here/$part.sh"
done
for major in 18 17; do
    "$here/postgres_npm.sh" "$major" >/dev/null
done
