#!/usr/bin/env bash
# FreeTDS's tsql (and freebcp) through the steps of sqlserver_steps.py, whose environment and results these are, as far as
# a program for a terminal goes: it has no parameters, no tokens and no TDS 8.0. Arguments: tsql, freebcp, names of steps.
set -uo pipefail

tsql=$1 freebcp=$2
shift 2
rows=${GATEPOST_TEST_ROWS:-100000}
name=$GATEPOST_TEST_NAME
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# A program that ended does not read what is written to it.
trap '' PIPE
export FREETDSCONF=$folder/freetds.conf
cat >"$FREETDSCONF" <<END
[gatepost]
host = $GATEPOST_TEST_HOST
port = $GATEPOST_TEST_PORT
tds version = 7.4
client charset = UTF-8
encryption = require
ca file = $GATEPOST_TEST_CA
check certificate hostname = yes
END

# Values as JSON already; number and text as they are.
tell() {
    local step=$1 ok=$2 values=$3 number=${4:-null} text=${5-}
    if [ -z "$text" ]; then text=null; else
        text=${text//\\/\\\\} text=${text//\"/\\\"} text=${text//$'\n'/\\n} text=${text//$'\t'/\\t}
        text="\"$(tr -d '\000-\037' <<<"$text")\""
    fi
    printf '{"step": "%s", "ok": %s, "values": %s, "error_number": %s, "error_text": %s}\n' \
        "$step" "$ok" "$values" "$number" "$text"
}

# Answers in $out, complaints in $err; each line GO ends a batch. Fails when the login did, or a statement.
session() {
    local status=0
    # Line by line, or nobody would see that it is connected.
    stdbuf -oL "$tsql" -S gatepost -U "${GATEPOST_TEST_USER:-}" -P "${GATEPOST_TEST_PASSWORD:-}" -D "$GATEPOST_TEST_DATABASE" \
        -a "$name" -o fhq "$@" >"$folder/out" 2>"$folder/err" || status=$?
    out=$(<"$folder/out") err=$(sed '/^Default database being set to/d' "$folder/err")
    return "$status"
}
# The number of the first complaint that is an error.
number() { sed -n 's/^Msg \([0-9]*\).*/\1/p' <<<"$err" | sed '/^0$/d' | head -1; }
numbers() { sed -n 's/^Msg \([0-9]*\).*/\1/p' <<<"$err" | sed '/^0$/d' | paste -sd' '; }

# Statements to an end that is good when $2, a pattern over the answers' lines joined by `|`, is what came.
expect() {
    local step=$1 pattern=$2 values=$3
    if session && [[ ${out//$'\n'/|} =~ ^$pattern$ ]]; then
        for n in 1 2 3 4; do values=${values//"\$$n"/"${BASH_REMATCH[n]:-}"}; done
        tell "$step" true "$values" "$(number)" "$err"
    else
        tell "$step" false '[]' "$(number)" "${err:-unexpected: $out}"
    fi
}
insert() { # step n [body]
    printf "INSERT INTO dbo.parcels (driver, step, n, body) VALUES (N'%s', N'%s', %s, %s)" "$name" "$1" "$2" "${3:-NULL}"
}
count() { printf "SELECT COUNT(*) FROM dbo.parcels WHERE driver = N'%s' AND step = N'%s'" "$name" "$1"; }
script() { printf '%s\nGO\n' "$@"; }
tab=$'\t'

connect() { script "SELECT 42, N'hi äöü 😀', @@SPID" | expect connect "42${tab}(hi äöü 😀)$tab([0-9]+)" '[42, "$1", $2]'; }

refused() {
    if session </dev/null; then tell refused false '[]'; else tell refused true '[]' "$(number)" "$err"; fi
}

ddl() {
    local table="${GATEPOST_TEST_SCHEMA:-dbo}.ddl_${name//[^a-zA-Z0-9]/_}"
    script "CREATE TABLE $table (n int NOT NULL PRIMARY KEY, body nvarchar(50) NULL)" \
        "INSERT INTO $table VALUES (1, N'äöü')" "SELECT n, body FROM $table" "DROP TABLE $table" |
        expect ddl "1${tab}(äöü)" '[1, "$1"]'
}

prepared() {
    local statements=("BEGIN TRANSACTION") n
    local insert="N'INSERT INTO dbo.parcels (driver, step, n, body, raw) VALUES (@d, N''prepared'', @n, @b, @r)'"
    for n in {1..100}; do
        statements+=("EXEC sp_executesql $insert, N'@d nvarchar(40), @n int, @b nvarchar(max), @r varbinary(max)', @d = N'$name', @n = $n, @b = N'text $n äöü 😀', @r = 0x00FF")
    done
    script "${statements[@]}" "COMMIT" "$(count prepared)" | expect prepared '([0-9]+)' '[$1]'
}

rollback() {
    script "BEGIN TRANSACTION" "$(insert rollback 1)" "$(count rollback)" "ROLLBACK" "$(count rollback)" |
        expect rollback '([0-9]+)\|([0-9]+)' '[$1, $2]'
}

procedure() {
    script "DECLARE @shipped int, @returned int EXEC @returned = dbo.ship N'$name', 21, @shipped OUTPUT SELECT @shipped, @returned" \
        "$(count procedure)" | expect procedure "(42)$tab(7)\|(1)" '[$1, $2, $3]'
}

rows() {
    if session < <(script "SELECT n, CAST(CONCAT(N'row ', n) AS nvarchar(40)) FROM dbo.numbers WHERE n < $rows"); then
        tell rows true "[$(wc -l <"$folder/out")]" "$(number)" "$err"
    else
        tell rows false '[]' "$(number)" "$err"
    fi
}

big() { tell big false '[]' null "this driver has no parameters"; }

bulk() {
    local n said
    for n in {1..10000}; do printf '%s\tbulk\t%s\trow %s äöü\t\n' "$name" "$n" "$n"; done >"$folder/rows"
    if said=$("$freebcp" dbo.parcels in "$folder/rows" -c -t '\t' -r '\n' -S gatepost -U "${GATEPOST_TEST_USER:-}" \
        -P "${GATEPOST_TEST_PASSWORD:-}" -D "$GATEPOST_TEST_DATABASE" -b 10000 2>&1 </dev/null) &&
        ! grep -q '^Msg' <<<"$said"; then
        script "$(count bulk)" | expect bulk '([0-9]+)' '[$1]'
    else
        tell bulk false '[]' null "freebcp: $said"
    fi
}

cancel() { tell cancel false '[]' null "this driver has no way to cancel"; }

recovery() {
    local told
    session < <(script "SELECT 1 +" "$(insert recovery 1)" "$(insert recovery 1)" "$(insert recovery 2)" "$(count recovery)")
    told=$(numbers)
    if [ "$out" = 2 ] && [ "$(wc -w <<<"$told")" -ge 2 ]; then
        read -r syntax twice _ <<<"$told"
        tell recovery true "[$syntax, $twice, 2]"
    else
        tell recovery false '[]' "$(number)" "$err $out"
    fi
}

transactions() {
    script "BEGIN TRANSACTION" "$(insert transactions 1)" "SAVE TRANSACTION here" "$(insert transactions 2)" \
        "ROLLBACK TRANSACTION here" "$(insert transactions 3)" "COMMIT" \
        "SELECT COUNT(*), SUM(n) FROM dbo.parcels WHERE driver = N'$name' AND step = N'transactions'" |
        expect transactions "(2)$tab(4)" '[$1, $2]'
}

error() {
    session < <(script "SELECT 1 / 0" "THROW 50001, N'stated äöü', 1;" "SELECT 7")
    local zero stated
    read -r zero stated _ <<<"$(numbers)"
    if [ "$out" = 7 ] && [ -n "${stated:-}" ]; then
        tell error true "[$zero, 7]" "$stated" "$err"
    else
        tell error false '[]' "$(number)" "$err $out"
    fi
}

# tsql reads its statements as they come, so what holds it open is its input.
hold() {
    local value
    if session && [ -n "$out" ]; then
        value=$(tail -1 <<<"$out")
        [[ $value =~ ^-?[0-9]+$ ]] || value="\"$value\""
        tell idle true "[$value]" "$(number)" "$err"
    else
        tell idle false '[]' "$(number)" "${err:-the connection ended}"
    fi
}

idle() {
    local line program
    mkfifo "$folder/in"
    hold <"$folder/in" &
    program=$!
    exec 3>"$folder/in"
    printf 'SELECT 42\nGO\n' >&3
    # Connected when the first answer has come.
    until [ -s "$folder/out" ] || ! kill -0 "$program" 2>/dev/null; do sleep 0.1; done
    if [ -s "$folder/out" ]; then
        tell idle true '["ready"]'
        IFS= read -r line || true
        printf '%s\nGO\n' "${line:-SELECT 43}" >&3
    fi
    exec 3>&-
    wait "$program"
    rm "$folder/in"
}

reset() { tell reset false '[]' null "this driver has no pool"; }

correlation() {
    script "EXEC sp_set_session_context N'correlation_id', N'correlation of $name'" \
        "$(insert correlation 1 "N'correlation of $name'")" "$(count correlation)" |
        expect correlation '1' "[\"correlation of $name\"]"
}

for step in "$@"; do
    if [ "${GATEPOST_TEST_TLS:-7.4}" = strict ]; then
        tell "$step" false '[]' null "this driver has no strict encryption"
    elif [ -n "${GATEPOST_TEST_TOKEN:-}" ]; then
        tell "$step" false '[]' null "this driver has no access tokens"
    else
        "$step"
    fi
done
