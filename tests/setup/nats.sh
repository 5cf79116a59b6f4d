#!/usr/bin/env bash
# nats-server with JetStream: Debian's own package.
set -euo pipefail
. "$(dirname "$0")/places.sh"

command -v nats-server >/dev/null || [ -x /usr/sbin/nats-server ] || debian_install nats-server
say "$(PATH=$PATH:/usr/sbin nats-server --version)"
