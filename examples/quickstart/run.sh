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
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

keep=
case ${1:-} in
    '') ;;
    --keep) keep=yes ;;
    *) sed -n '2,9s/^# \{0,1\}//p' examples/quickstart/run.sh; [ "$1" = --help ] || exit 2; exit 0 ;;
esac
. examples/parts/stage.sh

step "PostgreSQL"
find_postgres

step "Building (some minutes the first time)"
build --example order_consumer --example order_auditor

step "gatepost dev: identity provider, PostgreSQL, roles from the policy, the proxy"
start_dev

step "1,000 messages, one transaction and one correlation id each; the 500th is poisoned"
"$binaries/examples/order_consumer" examples/quickstart/messages.jsonl | tee "$folder/consumer.log"
tail -n 1 "$folder/consumer.log" | grep -q '^applied 999, already applied 0, refused 1,' ||
    fail "expected 999 applied messages and 1 that is refused"

step "Which message produced which transaction"
settle
"$gatepost" audit show --directory "$GATEPOST_DEV_AUDIT" >"$folder/show.txt"
sed -n '1,6p' "$folder/show.txt"
echo "…"
grep -E ' msg-(0499|0500|0501) ' "$folder/show.txt"

step "The journal is whole; an analyst may read but not write; the rows say what the journal says"
check_journal

step "Done"
if [ -z "$keep" ]; then
    echo "Run it again with --keep to try psql yourself."
else
    sed '/^gatepost dev:/d' "$folder/dev.log"
    wait "$dev"
fi
