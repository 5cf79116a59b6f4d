#!/usr/bin/env bash
# node-postgres (`pg`) with its cursor and COPY streams, exactly these versions.
set -euo pipefail
. "$(dirname "$0")/places.sh"

wanted="pg@8.23.1 pg-cursor@2.22.0 pg-copy-streams@7.0.0"
place=$tools/node-pg
if [ "$(cat "$place/ready" 2>/dev/null)" != "$wanted" ]; then
    rm -rf "$place"
    # shellcheck disable=SC2086  # one word a package
    npm_install "$place" $wanted
    echo "$wanted" >"$place/ready"
fi
# The node itself comes with the identity provider, which needs one that is new enough.
[ -x "$tools/node" ] || "$(dirname "$0")/oidc_provider.sh"
say "node drivers: $wanted"
