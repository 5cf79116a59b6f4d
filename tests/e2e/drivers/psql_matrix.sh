#!/usr/bin/env bash
# psql through the list of tests/e2e/matrix.rs. Argument: psql. See psycopg3_matrix.py.
set -euo pipefail
trap 'echo "wrong: line $LINENO" >&2' ERR
set -E

psql=$1 name=$PGAPPNAME
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
total=$((STORY_ROWS * (STORY_ROWS + 1) / 2))

wrong() { echo "wrong: $*" >&2; exit 1; }
has() { [[ $1 == *"$2"* ]] || wrong "no '$2' in: $1"; }
is() { [ "$1" = "$2" ] || wrong "wanted '$2', got '$1'"; }
# Unaligned, errors with their SQLSTATE, ends at the first.
ask() { "$psql" -XAtq -v ON_ERROR_STOP=1 -v VERBOSITY=verbose "$@"; }
count() { ask -c "SELECT count(*) FROM parcels WHERE driver = '$name' AND step = '$1'"; }
insert() { echo "INSERT INTO parcels (driver, step, n) VALUES ('$name', '$1', $2);"; }
# The errors of a script that goes on after each.
states() { "$psql" -XAtq -v VERBOSITY=sqlstate 2>&1 >/dev/null | sed 's/.*ERROR: *//' | paste -sd' '; }

connect() {
    is "$(ask -c 'SELECT current_database()')" orders
    has "$(ask -c '\conninfo')" 'SSL connection'
    has "$(ask -c '\d parcels')" 'raw|bytea'
}

refused() {
    local told
    told=$(PGDATABASE=nowhere ask -c 'SELECT 1' 2>&1) && wrong "let in"
    for part in 'no rule permits this identity' 'DETAIL:  gatepost session s-' 'HINT:  '; do
        has "$told" "$part"
    done
}

prepared() {
    {
        echo "PREPARE ship (int, text, bytea, jsonb, timestamptz, int[]) AS
            INSERT INTO parcels (driver, step, n, body, raw, doc, at, list)
            VALUES ('$name', 'prepared', \$1, \$2, \$3, \$4, \$5, \$6) RETURNING n;"
        for n in {1..100}; do
            echo "EXECUTE ship ($n, NULL, '\\x00ff', '{\"n\": [$n]}', '2026-01-02 03:04:05.678901+00', '{$n,NULL}');"
        done
    } | ask -f - >"$work/prepared"
    is "$(awk '{ total += $1 } END { print total }' "$work/prepared")" 5050
    is "$(count prepared)" 100
    is "$(ask -c "SELECT DISTINCT body IS NULL, raw, doc ->> 'n' = format('[%s]', n), list[2] IS NULL FROM parcels
        WHERE driver = '$name' AND step = 'prepared'")" 't|\x00ff|t|t'
}

# No pipeline here: several statements in one message, and blocks as a person types them.
pipeline() {
    for n in {1..25}; do insert pipeline "$n"; done | sed 's/;$/ \\;/' | { cat; echo 'SELECT 1;'; } | ask -f - >/dev/null
    { echo 'BEGIN;'; for n in {26..50}; do insert pipeline "$n"; done; echo 'COMMIT;'; } | ask -f -
    # One message is one transaction: nothing of it stays.
    is "$( (insert pipeline 99 | sed 's/;$/ \\;/'; insert pipeline 1) | states)" 23505
    is "$(count pipeline)" 50
}

copy() {
    seq 1 10000 | sed "s/.*/$name\tcopy\t&/" >"$work/copy"
    ask -c "\\copy parcels (driver, step, n) FROM '$work/copy'"
    is "$(printf '%s\tcopy\tmany\n' "$name" | { ask -c 'COPY parcels (driver, step, n) FROM STDIN' 2>&1 || true; } |
        sed -n 's/ERROR:  \(22P02\).*/\1/p')" 22P02
    ask -c "COPY (SELECT driver, step, n FROM parcels WHERE driver = '$name' AND step = 'copy' ORDER BY n) TO STDOUT" |
        cmp - "$work/copy"
}

large() {
    head -c 3932160 /dev/urandom | base64 -w 0 >"$work/large"
    {
        echo "\\set text \`cat '$work/large'\`"
        echo "INSERT INTO parcels (driver, step, n, body, raw) VALUES ('$name', 'large', 1, :'text', decode(:'text', 'base64'));"
    } | ask -f -
    ask -c "SELECT body FROM parcels WHERE driver = '$name' AND step = 'large'" | tr -d '\n' | cmp - "$work/large"
    is "$(ask -c "SELECT length(body), length(raw) FROM parcels WHERE driver = '$name' AND step = 'large'")" '5242880|3932160'
}

# FETCH_COUNT makes psql read by a cursor.
stream() {
    is "$(ask -v FETCH_COUNT=10000 -c "SELECT i FROM generate_series(1, $STORY_ROWS) AS i" |
        awk '{ total += $1 } END { printf "%.0f", total }')" "$total"
}

# Control-C. Without a terminal psql shows nothing any more after it, but goes on.
cancel() {
    "$psql" -XAtq -v VERBOSITY=sqlstate -c 'SELECT pg_sleep(30)' -c "$(insert cancel 1)" 2>"$work/err" &
    # Upstream the session's reference stands beside the application's name.
    local sleeper=$! asleep="wait_event = 'PgSleep' AND application_name LIKE '$name%'"
    until [ "$(ask -c "SELECT count(*) FROM pg_stat_activity WHERE $asleep")" = 1 ]; do
        kill -0 "$sleeper" || wrong 'nobody sleeps'
    done
    kill -INT "$sleeper"
    wait "$sleeper" || true
    has "$(cat "$work/err")" 57014
    is "$(count cancel)" 1
}

recovery() {
    is "$({
        echo 'SELECT * FROM nothing;'
        insert recovery 1
        insert recovery 1
        echo 'BEGIN;'
        insert recovery 2
        echo 'SELECT 1 / 0;'
        echo 'SELECT 7;'
        echo 'ROLLBACK;'
        echo 'BEGIN;'
        insert recovery 3
        echo 'SAVEPOINT here;'
        insert recovery 1
        echo 'ROLLBACK TO SAVEPOINT here;'
        # Such a row's xmin is the subtransaction's; the journal names the transaction.
        echo "INSERT INTO parcels (driver, step, n, body) VALUES ('$name', 'recovery', 4, pg_current_xact_id()::text);"
        echo 'COMMIT;'
        # A savepoint before each statement, set and let go by psql.
        echo '\set ON_ERROR_ROLLBACK on'
        echo 'BEGIN;'
        echo 'SELECT 1 / 0;'
        echo 'SELECT 7;'
        echo 'COMMIT;'
    } | states)" '42P01 23505 22012 25P02 23505 22012'
    is "$(count recovery)" 3
}

transactions() {
    local n=0
    for level in 'read uncommitted' 'read committed' 'repeatable read' serializable; do
        n=$((n + 1))
        is "$({ echo "BEGIN ISOLATION LEVEL $level;"; insert transactions $n; echo 'SHOW transaction_isolation; COMMIT;'; } | ask -f -)" "$level"
    done
    { echo 'BEGIN;'; insert transactions 99; echo 'ROLLBACK;'; } | ask -f -
    is "$({ echo 'BEGIN READ ONLY;'; insert transactions 98; echo 'ROLLBACK;'; } | states)" 25006
    is "$(count transactions)" 4
}

token() {
    local rest=${STORY_TOKEN_URL#http://}
    local host=${rest%%/*}
    exec 3<>"/dev/tcp/${host%:*}/${host#*:}"
    printf 'POST /%s HTTP/1.0\r\nHost: %s\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s' \
        "${rest#*/}" "$host" ${#STORY_TOKEN_FORM} "$STORY_TOKEN_FORM" >&3
    sed -n 's/.*"access_token":"\([^"]*\)".*/\1/p' <&3
    exec 3>&-
}

# A worker whose token ends again and again: what was answered is there, once.
expiry() {
    local rows=0 ends
    for ends in 1 2; do
        { for ((n = rows + 1; ; n++)); do insert expiry "$n" || break; sleep 0.05; done; } 2>/dev/null |
            PGPASSWORD=$(token) "$psql" -XAt -v ON_ERROR_STOP=1 -f - >"$work/answers" 2>"$work/told" && wrong "no end"
        grep -q 'has expired\|token expired\|closed the connection' "$work/told" || wrong "$(cat "$work/told")"
        rows=$((rows + $(grep -cx 'INSERT 0 1' "$work/answers")))
    done
    [ "$rows" -gt 1 ] || wrong "$rows rows"
    is "$(count expiry)" "$rows"
    echo "expiry $rows"
}

for step in connect refused prepared pipeline copy large stream cancel recovery transactions expiry; do
    started=${EPOCHREALTIME/./}
    "$step"
    echo "$step: good ($(((${EPOCHREALTIME/./} - started) / 1000)) ms)"
done
