#!/usr/bin/env bash
# A worker between a real RabbitMQ (AMQP 1.0, as Azure Service Bus speaks it) and PostgreSQL: it dies between
# a commit and its acknowledgement, loses its connection before a COMMIT and at the reply to one, gatepost is
# killed in the middle of one, and some messages no database will take. What became of every message is asked
# of the broker, of the journal and of the rows.
#
# Needs what the quickstart needs, and Debian's rabbitmq-server package (root installs it).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. examples/parts/stage.sh
. examples/servicebus_postgres/rabbitmq.sh

step "PostgreSQL and RabbitMQ"
find_postgres
tests/setup/rabbitmq.sh

step "Building"
build
build_worker servicebus_postgres

step "PostgreSQL, an identity provider and certificates: gatepost dev"
start_dev
dev_port=$GATEPOST_DEV_PORT

step "RabbitMQ with AMQP 1.0 inside TLS"
start_rabbitmq

# A gatepost beside the one of `gatepost dev`, with a journal of its own, so that it can be killed. It listens
# on port $1; 0 is any, and GATEPOST_DEV_PORT is the one.
audit=$GATEPOST_DEV_DIR/audit-worker
start_gatepost() {
    local config=$GATEPOST_DEV_DIR/worker-$1.yaml log=$folder/gatepost-$1.log
    sed -e 's/^installation: .*/installation: example/' -e '/^  metrics:/d' \
        -e "s/^  postgres: .*/  postgres: {address: \"127.0.0.1:$1\"}/" -e 's/directory: audit,/directory: audit-worker,/' \
        "$GATEPOST_DEV_CONFIG" >"$config"
    "$gatepost" serve --config "$config" >"$log" 2>&1 &
    proxy=$!
    until GATEPOST_DEV_PORT=$(sed -n 's/.*accepting PostgreSQL clients address=127.0.0.1:\([0-9]*\).*/\1/p' "$log") &&
        [ -n "$GATEPOST_DEV_PORT" ]; do
        kill -0 "$proxy" 2>/dev/null || fail "gatepost ended before it was ready"
        sleep 0.1
    done
}
stop_gatepost() {
    [ -n "${proxy:-}" ] || return 0
    kill -TERM "$proxy" 2>/dev/null || true
    wait "$proxy" || true
    proxy=
}

step "gatepost for the worker"
undo+=(stop_gatepost)
start_gatepost 0
echo "ready on 127.0.0.1:$GATEPOST_DEV_PORT"

# The broker has $2 messages in queue $1; they are left in step.log.
expect_queue() {
    "$worker" browse "${broker[@]}" "$1" | tee "$folder/step.log"
    expect "$2 in $1"
}
publish() { "$worker" publish "${broker[@]}" "$queue"; }
consume() {
    status=0
    "$worker" consume "${broker[@]}" "$queue" --settled "$folder/settled.jsonl" --idle-exit 3 "$@" \
        >"$folder/step.log" || status=$?
    grep -vE ': (was )?applied' "$folder/step.log" || true
}

step "A listener waits for what the database confirms"
"$worker" listen >"$folder/confirmed.txt" 2>"$folder/listener.log" &
listener=$!
running=("$listener" "${running[@]}")
until grep -qs '^listening' "$folder/confirmed.txt"; do
    kill -0 "$listener" 2>/dev/null || fail "the listener ended"
    sleep 0.1
done

step "60 messages, ten of them sent twice, and one that is no order"
{
    sed -n 451,510p examples/quickstart/messages.jsonl
    sed -n 451,460p examples/quickstart/messages.jsonl
    echo 'this is no order'
} | publish | tee "$folder/step.log"
expect "published 71 to $queue"

step "The worker dies after the 20th commit; the broker knows of ten"
consume --crash-after 20
[ "$status" = 9 ] || fail "expected the worker to die"
[ "$(wc -l <"$folder/settled.jsonl")" = 10 ] || fail "expected ten accepted messages"

step "Another goes on: its connection breaks before the 2nd COMMIT, and at the reply to the 4th"
consume --cut-before-commit 2 --lose-reply 4
[ "$status" = 0 ] || fail "the worker failed"
# 60 without the poisoned one and the 20 of before; the ten of before that came again, and ten sent twice.
expect "applied 39, already applied 20, dead-lettered 2, given back 10"
expect_lines '^  10 given back: ' 1
expect_lines 'its COMMIT was not answered' 1
expect_lines 'gatepost says committed \(server_reply\)$' 1
expect_lines ': was applied already, delivered again$' 10
expect_lines 'a batch of [0-9]+ is refused, each for itself: ' 1

step "gatepost is killed in the middle of a COMMIT, and starts again"
cat >"$folder/slow.sql" <<'EOF'
CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_sleep(3); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON public.orders DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.customer = 'slow') EXECUTE FUNCTION public.slow();
EOF
"$worker" script "$folder/slow.sql"
echo '{"id":"msg-slow","order":9001,"customer":"slow","cents":100}' | publish
consume &
consumer=$!
running=("$consumer" "${running[@]}")
tries=0
until grep -qs 'transaction.intent.*"case-msg-slow"' "$audit"/segment-*.jsonl; do
    tries=$((tries + 1))
    [ "$tries" -le 300 ] || fail "no intent of the slow message"
    sleep 0.1
done
# COMMIT follows its intent at once, and takes three seconds.
sleep 1
kill -KILL "$proxy"
wait "$proxy" 2>/dev/null || true
sleep 4
start_gatepost "$GATEPOST_DEV_PORT"
wait "$consumer" || fail "the worker failed"
expect "applied 1, already applied 0, dead-lettered 0, given back 0"
expect_lines 'gatepost says committed \(same_incarnation\)$' 1

step "The broker: nothing is left in the queue, the two bad ones are in the dead-letter queue"
expect_queue "$queue" 0
expect_queue "$dead_letters" 2
expect_lines '^  case-msg-0500: ' 1
expect_lines '^  case-unknown: this is no order$' 1

step "A consumer that may not write orders stops, and loses nothing"
echo 'REVOKE INSERT ON public.orders FROM orders_writer' >"$folder/revoke.sql"
"$worker" script "$folder/revoke.sql"
sed -n 511p examples/quickstart/messages.jsonl | publish
consume 2>"$folder/refused.log"
[ "$status" = 1 ] || fail "expected the worker to stop"
grep -i 'permission' "$folder/refused.log" || fail "expected the reason"
expect "applied 0, already applied 0, dead-lettered 0, given back 1"
expect_queue "$queue" 1
expect_queue "$dead_letters" 2 >/dev/null

step "The journal is whole"
kill -TERM "$listener"
wait "$listener" || fail "the listener failed"
stop_gatepost
"$gatepost" audit verify --directory "$audit" --public-key "$GATEPOST_DEV_AUDIT_KEY"

step "The broker's correlation ids, the journal's transactions, and the rows"
"$gatepost" audit show --directory "$audit" --identity order-consumer --json >"$folder/show.jsonl"
GATEPOST_DEV_PORT=$dev_port "$worker" table --settled "$folder/settled.jsonl" --confirmed "$folder/confirmed.txt" \
    <"$folder/show.jsonl" | tee "$folder/step.log"
expect_lines ' accepted .* committed ' 60
expect_lines ' rejected ' 2
# All but the one during whose COMMIT the listener's connection was lost, too.
expect_lines ' yes$' 59
