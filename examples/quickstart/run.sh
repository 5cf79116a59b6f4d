#!/usr/bin/env bash
# The whole promise on one machine: an ordinary driver connects with an OIDC token, a policy decides,
# a short-lived login is minted, the work is done, and the audit journal shows which identity and
# which message produced which transaction.
#
#   examples/quickstart/run.sh            everything, then it ends and leaves nothing running
#   examples/quickstart/run.sh --keep     … and the proxy stays until Ctrl-C, for you to try psql on
#
# Needs a Rust toolchain and a package manager (Debian's apt as root, else npm), or a PostgreSQL.
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$repository"

keep=
case ${1:-} in
    '') ;;
    --keep) keep=yes ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; [ "$1" = --help ] || exit 2; exit 0 ;;
esac

step() { printf '\n== %s\n' "$*"; }
fail() { printf '\nquickstart: %s\n' "$*" >&2; exit 1; }

step "PostgreSQL"
if [ -z "${GATEPOST_POSTGRES_BIN:-}" ]; then
    newest=$(ls -d /usr/lib/postgresql/*/bin/postgres 2>/dev/null | sort -V | tail -1)
    [ -n "$newest" ] || newest=$(command -v postgres || true)
    if [ -z "$newest" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing Debian's postgresql package"
        export DEBIAN_FRONTEND=noninteractive
        apt-get install -y --no-install-recommends postgresql >/dev/null ||
            { apt-get update >/dev/null && apt-get install -y --no-install-recommends postgresql >/dev/null; } ||
            fail "could not install postgresql with apt-get"
        newest=$(ls -d /usr/lib/postgresql/*/bin/postgres | sort -V | tail -1)
    elif [ -z "$newest" ]; then
        echo "fetching server binaries from npm"
        newest=$(tests/setup/postgres_npm.sh 18 | tail -1)/postgres
    fi
    GATEPOST_POSTGRES_BIN=$(dirname "$(readlink -f "$newest")")
    export GATEPOST_POSTGRES_BIN
fi
"$GATEPOST_POSTGRES_BIN/postgres" --version

step "Building"
cargo build --bin gatepost --example order_consumer --example order_auditor
binaries=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/debug
gatepost=$binaries/gatepost

folder=$(mktemp -d "${TMPDIR:-/tmp}/gatepost-quickstart.XXXXXX")
chmod 755 "$folder"
dev=
finish() {
    status=$?
    trap - EXIT INT TERM
    if [ -n "$dev" ]; then
        kill -TERM "$dev" 2>/dev/null || true
        wait "$dev" 2>/dev/null || true
    fi
    [ "$status" = 0 ] || [ ! -s "$folder/dev.log" ] || tail -30 "$folder/dev.log" >&2
    rm -rf "$folder"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

step "gatepost dev: identity provider, PostgreSQL, roles from the policy, the proxy"
"$gatepost" dev --dir "$folder/world" >"$folder/dev.log" 2>&1 &
dev=$!
until [ -e "$folder/world/dev.env" ]; do
    kill -0 "$dev" 2>/dev/null || fail "gatepost dev ended before it was ready"
    sleep 0.1
done
set -a
. "$folder/world/dev.env"
set +a
echo "ready on $GATEPOST_DEV_HOST:$GATEPOST_DEV_PORT"

step "1,000 messages, one transaction and one correlation id each; the 500th is poisoned"
"$binaries/examples/order_consumer" examples/quickstart/messages.jsonl | tee "$folder/consumer.log"
tail -1 "$folder/consumer.log" | grep -q '^applied 999, already applied 0, refused 1,' ||
    fail "expected 999 applied and 1 refused messages"

step "The journal is whole"
"$gatepost" audit verify --directory "$GATEPOST_DEV_AUDIT" --public-key "$GATEPOST_DEV_AUDIT_KEY"

step "Which message produced which transaction"
"$gatepost" audit show --directory "$GATEPOST_DEV_AUDIT" >"$folder/show.txt"
head -8 "$folder/show.txt"
echo "…"
for id in msg-0499 msg-0500 msg-0501; do
    "$gatepost" audit show --directory "$GATEPOST_DEV_AUDIT" --correlation "$id" | sed -n 2p
done

step "An analyst reads, is refused a write, and compares the journal with the rows themselves"
"$gatepost" audit show --directory "$GATEPOST_DEV_AUDIT" --identity order-consumer --json >"$folder/show.jsonl"
"$binaries/examples/order_auditor" <"$folder/show.jsonl"

step "Done"
if [ -n "$keep" ]; then
    cat "$folder/dev.log"
    wait "$dev"
else
    echo "Run it again with --keep to try psql yourself."
fi
