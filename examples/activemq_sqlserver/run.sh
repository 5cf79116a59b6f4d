#!/usr/bin/env bash
# A worker between a real ActiveMQ and SQL Server: it dies between a commit and its acknowledgement, loses
# its database in the middle of a transaction, and gets messages that no database will take. What became of
# every message is asked of the broker and of the database.
#
#   [GATEPOST_TEST_SQLSERVER='HOST:PORT;USER;PASSWORD'] examples/activemq_sqlserver/run.sh
#
# Needs a Rust toolchain, PostgreSQL's programs for `gatepost dev`, a SQL Server whose administrator the
# variable names or else the tests' scripted one (see examples/parts/sqlserver_stage.sh), and Debian's activemq package (root installs it).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. examples/parts/stage.sh
. examples/parts/sqlserver_stage.sh

step "SQL Server and ActiveMQ"
find_postgres
tests/setup/activemq.sh

step "Building"
build
build_worker activemq_sqlserver

step "An identity provider and certificates: gatepost dev"
start_dev

step "SQL Server"
find_sqlserver

step "ActiveMQ with STOMP inside TLS"
mkdir -p "$folder/activemq/tmp"
broker_password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
(umask 077
printf %s "$broker_password" >"$folder/broker.password"
printf 'broker.password=%s\n' "$broker_password" >"$folder/activemq/broker.properties")
keytool -genkeypair -alias broker -keyalg EC -groupname secp256r1 -dname CN=localhost \
    -ext san=ip:127.0.0.1,dns:localhost -validity 2 -storetype PKCS12 \
    -keystore "$folder/activemq/broker.p12" -storepass:file "$folder/broker.password" 2>"$folder/keytool.log"
keytool -exportcert -rfc -alias broker -keystore "$folder/activemq/broker.p12" \
    -storepass:file "$folder/broker.password" >"$folder/broker-ca.crt" 2>>"$folder/keytool.log"
java -Xms32m -Xmx96m --add-opens java.base/java.lang=ALL-UNNAMED --add-opens java.base/java.util=ALL-UNNAMED \
    -Djava.io.tmpdir="$folder/activemq/tmp" -Dlog4j.configuration="file:$PWD/examples/activemq_sqlserver/log4j.properties" \
    -Dactivemq.home=/usr/share/activemq -Dactivemq.base="$folder/activemq" \
    -Dactivemq.conf="$folder/activemq" -Dactivemq.data="$folder/activemq/data" \
    -jar /usr/share/activemq/bin/activemq.jar start "xbean:file:$PWD/examples/activemq_sqlserver/activemq.xml" \
    >"$folder/activemq.log" 2>&1 &
activemq=$!
running+=("$activemq")
until grep -qs 'Connector stomp started' "$folder/activemq.log"; do
    kill -0 "$activemq" 2>/dev/null || fail "ActiveMQ ended"
    sleep 0.2
done
port=$(sed -n 's/.*Listening for connections at: stomp+ssl:.*:\([0-9]*\).*/\1/p' "$folder/activemq.log" | head -n 1)
broker=(--broker "stomp+ssl://127.0.0.1:$port" --broker-ca "$folder/broker-ca.crt"
    --broker-user orders --broker-password-file "$folder/broker.password")
echo "ready on 127.0.0.1:$port"

step "A database with the consumer's role"
make_database "$worker"

step "gatepost in front of it"
start_gatepost
consumer_access orders_writer

# The broker has $2 messages in queue $1; they are left in step.log.
expect_queue() {
    "$worker" browse "${broker[@]}" "$1" | tee "$folder/step.log"
    expect "$2 in $1"
}
consume() {
    status=0
    "$worker" consume "${broker[@]}" "${access[@]}" --idle-exit 3 "$@" >"$folder/step.log" || status=$?
    grep -v ': applied$' "$folder/step.log" || true
}

step "60 messages, ten of them sent twice, and one that is no order"
{
    sed -n 451,510p examples/quickstart/messages.jsonl
    sed -n 451,460p examples/quickstart/messages.jsonl
    echo 'this is no order'
} | "$worker" publish "${broker[@]}" | tee "$folder/step.log"
expect "published 71 to orders"

step "The worker dies after the 20th commit, before the broker knows"
consume --crash-after 20
[ "$status" = 9 ] || fail "expected the worker to die"
expect_queue orders 52 >/dev/null

step "Another goes on; its database connection breaks in the middle of its 10th transaction"
consume --cut-at 10
[ "$status" = 0 ] || fail "the worker failed"
# 60 without the poisoned one and the 20 of before; the one at which the first died, and ten sent twice.
expect "applied 39, already applied 11, dead-lettered 2, given back 1"
expect_lines '^  msg-0470: was applied already, delivered again$' 1
expect_lines '^  msg-0479: given back: ' 1
expect_lines '^  msg-0479: applied, delivered again$' 1
expect_lines ', delivered again' 2

step "The broker: nothing is left in the queue, the two bad ones are in the dead-letter queue"
expect_queue orders 0
expect_queue ActiveMQ.DLQ 2
expect_lines '^  case-msg-0500 from /queue/orders: ' 1
expect_lines '^  case-unknown from /queue/orders: this is no order$' 1

step "The database: 59 rows, each made once, in a session with its message's correlation id"
read_rows "$worker"
[ "$(wc -l <"$folder/rows.txt")" = 59 ] || fail "expected 59 rows"
for number in $(seq 451 499) $(seq 501 510); do
    grep -qx "order $number case-msg-0$number" "$folder/rows.txt" || fail "order $number is missing"
done
echo "  59 orders"

step "A consumer that may not write orders stops, and loses nothing"
printf 'REVOKE INSERT ON dbo.orders FROM orders_writer;\n' >"$folder/revoke.sql"
"$worker" script "${admin[@]}" --database "$database" "$folder/revoke.sql" >/dev/null
sed -n 511p examples/quickstart/messages.jsonl | "$worker" publish "${broker[@]}"
consume 2>"$folder/refused.log"
[ "$status" = 1 ] || fail "expected the worker to stop"
grep -i 'permission' "$folder/refused.log" || fail "expected the reason"
expect "applied 0, already applied 0, dead-lettered 0, given back 0"
expect_queue orders 1
expect_queue ActiveMQ.DLQ 2 >/dev/null

step "The journal"
check_shop_journal
