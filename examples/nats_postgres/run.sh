#!/usr/bin/env bash
# A worker on a real NATS JetStream: it dies between a commit and its acknowledgement, and the message
# that is delivered again is applied once.
#
# Needs what the quickstart needs, and nats-server (Debian's package; root installs it).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. examples/parts/stage.sh
PATH=$PATH:/usr/sbin

step "PostgreSQL and NATS"
find_postgres
tests/setup/nats.sh

step "Building"
build --example order_auditor
build_worker nats_postgres

step "nats-server with JetStream, and gatepost dev"
nats-server -a 127.0.0.1 -p -1 -js -sd "$folder/jetstream" --ports_file_dir "$folder" >"$folder/nats.log" 2>&1 &
nats_server=$!
start_dev
# Ended last: the worker's side first.
running+=("$nats_server")
ports=$folder/nats-server_$nats_server.ports
until [ -s "$ports" ]; do
    kill -0 "$nats_server" 2>/dev/null || fail "nats-server ended"
    sleep 0.1
done
nats=$(sed -n 's/.*"nats":\["\([^"]*\)".*/\1/p' <(tr -d ' \n' <"$ports"))

step "100 messages are published, and once more: JetStream knows them by their ids"
for wanted in "published 100, known already 0" "published 0, known already 100"; do
    sed -n 451,550p examples/quickstart/messages.jsonl | "$worker" --nats "$nats" publish | tee "$folder/step.log"
    expect "$wanted"
done

step "The worker dies after the 30th commit, before the broker knows"
status=0
"$worker" --nats "$nats" consume --crash-after 30 || status=$?
[ "$status" = 9 ] || fail "expected the worker to die"

step "Another worker goes on: the 30th message comes again, a poisoned one is terminated"
"$worker" --nats "$nats" consume | tee "$folder/step.log"
expect "applied 69, already applied 1, terminated 1"

step "The journal is whole, and the rows say what the journal says"
check_journal
committed=$(grep -c '"outcome":"committed"' "$folder/show.jsonl")
[ "$committed" = 99 ] || fail "99 messages are applied, and $committed transactions committed"
echo "  99 messages, 99 transactions"
