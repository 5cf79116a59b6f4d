#!/usr/bin/env bash
# Two workers between a real NATS JetStream and SQL Server, one for orders and one for payments, each with an
# identity and a role of its own. The orders' worker dies twice, after a commit and after a result, and loses
# its database in the middle of a transaction. What became of every message is asked of the broker and of the
# database.
#
#   [GATEPOST_TEST_SQLSERVER='HOST:PORT;USER;PASSWORD'] examples/nats_sqlserver/run.sh
#
# Needs a Rust toolchain, PostgreSQL's programs for `gatepost dev`, a SQL Server whose administrator the
# variable names or else the tests' scripted one (see examples/parts/sqlserver_stage.sh), and nats-server (Debian's package; root installs it).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. examples/parts/stage.sh
. examples/parts/sqlserver_stage.sh
PATH=$PATH:/usr/sbin

step "SQL Server and NATS"
find_postgres
tests/setup/nats.sh

step "Building"
build
build_worker nats_sqlserver

step "An identity provider and certificates: gatepost dev"
start_dev

step "SQL Server"
find_sqlserver

step "nats-server with JetStream"
nats-server -a 127.0.0.1 -p -1 -js -sd "$folder/jetstream" --ports_file_dir "$folder" >"$folder/nats.log" 2>&1 &
nats_server=$!
running+=("$nats_server")
ports=$folder/nats-server_$nats_server.ports
until [ -s "$ports" ]; do
    kill -0 "$nats_server" 2>/dev/null || fail "nats-server ended"
    sleep 0.1
done
nats=(--nats "$(sed -n 's/.*"nats":\["\([^"]*\)".*/\1/p' <(tr -d ' \n' <"$ports"))")
echo "ready on ${nats[1]}"

step "A database with a role for every consumer"
make_database "$worker"

step "gatepost in front of it"
start_gatepost

# The consumer of domain $2 with the identity that has role $1.
consume() {
    local role=$1 domain=$2; shift 2
    consumer_access "$role"
    status=0
    "$worker" consume "${nats[@]}" "${access[@]}" "$domain" --ack-wait 4 --idle-exit 7 "$@" \
        >"$folder/step.log" || status=$?
    grep -v ': applied$' "$folder/step.log" || true
}

step "60 orders and 20 payments are published, one of each is bad, and so is a third that is no order"
sed -n 451,510p examples/quickstart/messages.jsonl >"$folder/orders.jsonl"
echo 'this is no order' >>"$folder/orders.jsonl"
for number in $(seq 1 20); do
    cents=$((number * 100))
    [ "$number" != 13 ] || cents=0
    printf '{"id":"pay-%02d","payment":%d,"order":%d,"cents":%d}\n' "$number" "$number" $((450 + number)) "$cents"
done >"$folder/payments.jsonl"
"$worker" publish "${nats[@]}" orders <"$folder/orders.jsonl" | tee "$folder/step.log"
expect "published 61, known already 0"
for wanted in "published 20, known already 0" "published 0, known already 20"; do
    "$worker" publish "${nats[@]}" payments <"$folder/payments.jsonl" | tee "$folder/step.log"
    expect "$wanted"
done

step "The orders' worker dies after its 10th commit, before the result is published"
consume orders_writer orders --crash-after-commit 10
[ "$status" = 9 ] || fail "expected the worker to die"

step "Another dies after its 10th result, before the message is acknowledged"
consume orders_writer orders --crash-after-result 10
[ "$status" = 9 ] || fail "expected the worker to die"

step "A third goes on; its database connection breaks in the middle of its 10th transaction"
consume orders_writer orders --cut-at 10
[ "$status" = 0 ] || fail "the worker failed"
expect_lines ': put off: ' 1
expect_lines ': applied, delivery 2$' 1
expect_lines ', terminated: |: terminated: ' 2
tail -n 1 "$folder/step.log" >"$folder/orders.tally"

step "The payments' worker"
consume payments_writer payments
[ "$status" = 0 ] || fail "the worker failed"
expect "applied 19, already applied 0, terminated 1, put off 0; results 20, known already 0"

step "The broker: every message has its fate, and one result"
"$worker" fates "${nats[@]}" >"$folder/step.log"
grep -v '^  ' "$folder/step.log"
expect_lines '^orders: stored 61, waiting 0, unanswered 0, delivered again 3, terminated 2$' 1
expect_lines '^payments: stored 20, waiting 0, unanswered 0, delivered again 0, terminated 1$' 1
expect_lines '^  results.orders .*"outcome":"applied"' 59
expect_lines '^  results.orders .*"outcome":"refused"' 2
expect_lines '^  results.payments .*"outcome":"applied"' 19
expect_lines '^  results.payments .*"message":"pay-13".*"outcome":"refused"' 1

step "The database: every message made its row once, in a session with its id"
read_rows "$worker"
[ "$(wc -l <"$folder/rows.txt")" = 78 ] || fail "expected 78 rows"
for number in $(seq 451 499) $(seq 501 510); do
    grep -qx "order $number msg-0$number" "$folder/rows.txt" || fail "order $number is missing"
done
for number in $(seq 1 12) $(seq 14 20); do
    grep -qx "payment $number pay-$(printf %02d "$number")" "$folder/rows.txt" || fail "payment $number is missing"
done
echo "  59 orders, 19 payments"

step "The payments' identity may not write orders: its worker stops, and loses nothing"
sed -n 511p examples/quickstart/messages.jsonl | "$worker" publish "${nats[@]}" orders
consume payments_writer orders 2>"$folder/refused.log"
[ "$status" = 1 ] || fail "expected the worker to stop"
grep -i 'permission' "$folder/refused.log" || fail "expected the reason"
consume orders_writer orders
expect "applied 1, already applied 0, terminated 0, put off 0; results 1, known already 0"

step "The journal"
check_shop_journal
