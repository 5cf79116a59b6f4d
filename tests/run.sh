#!/usr/bin/env bash
# Everything that says whether gatepost is in order, as continuous integration runs it.
#
#   tests/run.sh            set up, check, test, run the examples; the last line is `N passed, N failed`
#   tests/run.sh --no-setup the same with what is installed already
#
# Needs a Rust toolchain with a C compiler, and a package manager. As root on Debian it installs what is
# missing; an ordinary user is told what an administrator must install. What the tests fetch themselves
# (npm, PyPI, cargo-deny) is kept in target/test-tools. Full outputs are in target/test-logs.
# GATEPOST_TEST_FULL=1 runs the long tests at their full length.
set -uo pipefail
# Every step is a process group of its own, with the usual signals.
set -m
cd "$(dirname "${BASH_SOURCE[0]}")/.."

setup=yes
case ${1:-} in
    '') ;;
    --no-setup) setup= ;;
    *) sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; [ "$1" = --help ] || exit 2; exit 0 ;;
esac

export LC_ALL=C.UTF-8 CARGO_TERM_COLOR=never
target=${CARGO_TARGET_DIR:-$PWD/target}
tools=${GATEPOST_TEST_TOOLS:-$target/test-tools}
logs=$target/test-logs
deny_version=0.20.2
# How much of a failed step's output is shown here.
tail_lines=150
mkdir -p "$tools" "$logs"

# Temporary files in one place, readable by the account that runs PostgreSQL. Every process that this run
# starts carries the mark, so that one left behind is found.
TMPDIR=$(mktemp -d "${TMPDIR:-/tmp}/gatepost-tests.XXXXXX")
chmod 1777 "$TMPDIR"
export TMPDIR
export GATEPOST_TEST_RUN=$TMPDIR

passed=0 failed=0 skipped=() failures=() step_pid=

# The process group of a process.
group_of() {
    local stat fields
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    # After the name, which may hold anything: state, parent, group.
    read -ra fields <<<"${stat##*) }"
    echo "${fields[2]}"
}

# Processes of this run, this script and its own tools excepted: their environment or command line
# names the run's folder.
left_behind() {
    local process id own
    own=$(group_of $$)
    for process in /proc/[0-9]*; do
        id=${process#/proc/}
        [ "$(group_of "$id")" != "$own" ] || continue
        if grep -qszF "$TMPDIR" "$process/environ" "$process/cmdline"; then
            echo "$id"
        fi
    done
}

finish() {
    local status=$? id
    trap - EXIT INT TERM
    [ -z "$step_pid" ] || kill -TERM -- "-$step_pid" 2>/dev/null
    for id in $(left_behind); do kill -TERM "$id" 2>/dev/null; done
    rm -rf "$TMPDIR"
    exit "$status"
}
trap finish EXIT
trap 'echo; echo "interrupted"; exit 130' INT TERM

note() { printf '         %s\n' "$*"; }

# Runs a step with its output in a file. Sets `log` and `seconds`.
attempt() {
    local name=$1 started=$SECONDS status; shift
    log=$logs/$name.log
    "$@" >"$log" 2>&1 </dev/null &
    step_pid=$!
    wait "$step_pid"
    status=$?
    step_pid=
    seconds=$((SECONDS - started))
    return "$status"
}

good() { printf 'ok   %5d s  %s\n' "$seconds" "$1"; }

# A step that failed: its name, and the end of what it said.
bad() {
    printf 'FAIL %5d s  %s\n' "$seconds" "$1"
    failures+=("$1")
    tail -n "$tail_lines" "$log" | sed 's/^/    | /'
}

skip() {
    printf 'skip          %s: %s\n' "$1" "$2"
    skipped+=("$1")
}

# A step that counts as one test.
step() {
    local name=$1; shift
    if attempt "${name// /-}" "$@"; then
        passed=$((passed + 1))
        good "$name"
    else
        failed=$((failed + 1))
        bad "$name"
    fi
}

# A step that counts as the tests in it. $2 prints "passed failed skipped" from its output.
tests() {
    local name=$1 count=$2 status=0 p f s; shift 2
    attempt "${name// /-}" "$@" || status=$?
    read -r p f s < <("$count" "$log")
    # It failed without a test that did: it did not build, or ended early.
    [ "$status" = 0 ] || [ "$f" -gt 0 ] || f=1
    passed=$((passed + p)) failed=$((failed + f))
    if [ "$f" = 0 ]; then
        good "$name: $p passed"
    else
        bad "$name: $p passed, $f failed"
    fi
    [ "$s" = 0 ] || note "$s not run, see $log"
}

count_nextest() {
    sed -n 's/^ *Summary \[.*\] *\(.*\)$/\1/p' "$1" | tail -1 | awk -F'[:,]' '
        { for (i = 2; i <= NF; i++) { split($i, w, " "); n[w[2]] += w[1] } }
        END { print n["passed"] + 0, n["failed"] + n["timed"] + n["exec"] + 0, n["skipped"] + 0 }'
}

count_cargo_test() {
    awk '/^test result:/ { gsub(/[.;]/, ""); p += $4; f += $6; s += $8 } END { print p + 0, f + 0, s + 0 }' "$1"
}

# ---------------------------------------------------------------------------------------------------
echo "== What the tests need"
if [ -n "$setup" ]; then
    missing=
    for part in compiler postgres postgres_npm nats activemq rabbitmq oidc_provider drivers node_pg tedious freetds jdbc rsyslog; do
        if attempt "setup-$part" "tests/setup/$part.sh"; then
            passed=$((passed + 1))
            good "$(sed -n 's/^setup: //p' "$log" | tail -1)"
        else
            failed=$((failed + 1))
            bad "setup of $part"
            missing+=" $part"
        fi
    done
    case $missing in *postgres*)
        # Enough for the tests that bring their own client.
        attempt setup-postgres-npm tests/setup/postgres_npm.sh 18 &&
            GATEPOST_TEST_PG_BIN=$(tail -1 "$log") && export GATEPOST_TEST_PG_BIN ;;
    esac
    if [ -n "$missing" ] && [ "$(id -u)" != 0 ]; then
        note "An administrator can install all of it on Debian:"
        note "apt-get install gcc libc6-dev libssl-dev pkg-config postgresql-15 postgresql-client-15 nats-server" \
            "activemq rabbitmq-server python3-venv npm default-jdk-headless libpostgresql-jdbc-java libjtds-java freetds-bin" \
            "libltdl7 libkrb5-3 libgssapi-krb5-2 rsyslog rsyslog-gnutls"
    fi
fi

echo "== The sources"
step "format" cargo fmt --all --check
step "clippy" cargo clippy --workspace --all-targets -- -D warnings
step "build without dev" cargo check --no-default-features
step "documentation" env RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps

deny() { PATH=$tools/bin:$PATH cargo deny "$@"; }
if ! deny --version >/dev/null 2>&1; then
    if attempt "install-cargo-deny" cargo install cargo-deny --version "$deny_version" --locked --debug \
        --root "$tools" --target-dir "$target/cargo-deny"; then
        rm -rf "$target/cargo-deny"
        note "cargo-deny $deny_version installed in $seconds s"
    fi
fi
if deny --version >/dev/null 2>&1; then
    step "dependencies" env PATH="$tools/bin:$PATH" cargo deny check bans licenses sources
else
    skip "dependencies" "cargo-deny is missing and could not be installed, see $logs/install-cargo-deny.log"
fi

echo "== Tests"
# All at once: a part that is built alone has other features, and builds what it stands on once more.
step "build" cargo build --workspace --bins --examples --tests
export GATEPOST_BUILT=yes
step "Rust drivers" tests/setup/rust_drivers.sh
if cargo nextest --version >/dev/null 2>&1; then
    tests "tests" count_nextest cargo nextest run --workspace --profile ci --color never
else
    tests "tests" count_cargo_test cargo test --workspace --lib --bins --tests --examples --no-fail-fast
fi
tests "documentation tests" count_cargo_test cargo test --workspace --doc

echo "== Examples"
# As anybody runs it, building included.
step "quickstart" env GATEPOST_BUILT= examples/quickstart/run.sh
step "a consumer on NATS" examples/nats_postgres/run.sh
step "consumers on NATS and SQL Server" examples/nats_sqlserver/run.sh
step "a consumer on ActiveMQ and SQL Server" examples/activemq_sqlserver/run.sh
step "a consumer on RabbitMQ by AMQP 1.0" examples/servicebus_postgres/run.sh

echo "== Afterwards"
remaining=$(left_behind)
if [ -z "$remaining" ]; then
    passed=$((passed + 1))
    echo "ok            nothing is left running"
else
    failed=$((failed + 1))
    failures+=("nothing is left running")
    echo "FAIL          left running:"
    for id in $remaining; do note "$id $(tr '\0' ' ' <"/proc/$id/cmdline" 2>/dev/null)"; done
fi

echo
[ ${#skipped[@]} = 0 ] || printf 'skipped: %s\n' "${skipped[@]}"
[ ${#failures[@]} = 0 ] || printf 'failed: %s\n' "${failures[@]}"
printf 'in %d min %d s\n' $((SECONDS / 60)) $((SECONDS % 60))
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
