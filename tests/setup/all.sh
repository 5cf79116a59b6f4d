#!/usr/bin/env bash
# Brings everything that the tests need beside Rust; seconds when it is here already.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
for part in compiler postgres postgres_npm nats activemq rabbitmq oidc_provider drivers node_pg tedious freetds jdbc rsyslog rust_drivers; do
    "$here/$part.sh"
done
