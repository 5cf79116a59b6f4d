# Where the things that tests need are kept. Sourced by the scripts beside it and by tests/run.sh.
#
# Everything lies outside git in one cache folder, laid out the way tests/support/tools.rs reads it:
#   oidc-provider/node_modules/oidc-provider     the certified OpenID provider
#   node                                         a node that it supports
#   postgres-18, postgres-17                     server binaries from npm (bin/, lib/, share/)
#   python/bin/python                            a venv with the drivers
#   node-pg/node_modules/pg                      node-postgres and its companions
#   tedious/node_modules/tedious                 SQL Server's driver for node
#   jdbc/java, jdbc/postgresql.jar, jtds.jar     a JDK's java, and pgjdbc and jTDS
#   freetds/tsql, freetds/freebcp                FreeTDS's programs

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
target=${CARGO_TARGET_DIR:-$repository/target}
tools=${GATEPOST_TEST_TOOLS:-$target/test-tools}
mkdir -p "$tools"

say() { printf '%s\n' "setup: $*"; }
fail() { printf '%s\n' "setup: $*" >&2; exit 1; }

# Installs Debian packages, when this is root on a machine that has apt.
debian_install() {
    [ "$(id -u)" = 0 ] || fail "$* missing, and only root can install it: apt-get install $*"
    command -v apt-get >/dev/null || fail "$* missing, and there is no apt-get here: install it by hand"
    say "installing $* (Debian)"
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y --no-install-recommends "$@" >"$tools/apt.log" 2>&1 ||
        { apt-get update >>"$tools/apt.log" 2>&1 &&
          apt-get install -y --no-install-recommends "$@" >>"$tools/apt.log" 2>&1; } ||
        { tail -5 "$tools/apt.log" >&2; fail "could not install $*"; }
}

# npm packages land in a folder of their own; scripts of packages are not run.
npm_install() {
    local folder=$1; shift
    command -v npm >/dev/null || fail "npm missing (needed for $*): install Node.js with npm"
    mkdir -p "$folder"
    say "installing $* (npm)"
    (cd "$folder" && npm install --prefix . --no-save --no-audit --no-fund --ignore-scripts --loglevel=error "$@") ||
        fail "npm could not install $*: is the npm registry reachable?"
}
