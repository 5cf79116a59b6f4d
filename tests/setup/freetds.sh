#!/usr/bin/env bash
# FreeTDS's tsql and freebcp: Debian's own package.
set -euo pipefail
. "$(dirname "$0")/places.sh"

command -v tsql >/dev/null || debian_install freetds-bin
mkdir -p "$tools/freetds"
for program in tsql freebcp; do
    ln -sfn "$(command -v "$program")" "$tools/freetds/$program"
done
say "FreeTDS $(tsql -C | sed -n 's/.*Version: freetds v//p')"
