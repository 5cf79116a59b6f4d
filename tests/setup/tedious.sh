#!/usr/bin/env bash
# tedious, SQL Server's driver for node: exactly this version, which needs Node.js 22.
set -euo pipefail
. "$(dirname "$0")/places.sh"

wanted="tedious@20.3.9"
place=$tools/tedious
if [ "$(cat "$place/ready" 2>/dev/null)" != "$wanted" ]; then
    rm -rf "$place"
    npm_install "$place" "$wanted"
    echo "$wanted" >"$place/ready"
fi
# The node itself comes with the identity provider, which needs one as new.
[ -x "$tools/node" ] || "$(dirname "$0")/oidc_provider.sh"
say "$wanted on node $("$tools/node" --version)"
