#!/usr/bin/env bash
# pgjdbc, jTDS, and a JDK that compiles and runs one source file (17 or newer).
#   GATEPOST_TEST_PGJDBC=/path/to/postgresql-x.y.z.jar    takes this one instead of Debian's package
#   GATEPOST_TEST_JTDS=/path/to/jtds-x.y.z.jar            the same
set -euo pipefail
. "$(dirname "$0")/places.sh"

place=$tools/jdbc
mkdir -p "$place"

# A `java` may be there without the compiler that running a source file needs.
runs_sources() { "$1" --list-modules 2>/dev/null | grep -q '^jdk\.compiler@'; }

java=$(command -v java || true)
if [ -z "$java" ] || ! runs_sources "$java"; then
    debian_install default-jdk-headless
    java=$(command -v java)
    runs_sources "$java" || fail "$java cannot compile: install a JDK, version 17 or newer"
fi
ln -sfn "$java" "$place/java"

# The jars are Debian's: signed, and to be had wherever the other packages are, which Maven Central is not.
jar=${GATEPOST_TEST_PGJDBC:-/usr/share/java/postgresql.jar}
[ -n "${GATEPOST_TEST_PGJDBC:-}" ] || [ -e "$jar" ] || debian_install libpostgresql-jdbc-java
[ -e "$jar" ] || fail "no pgjdbc at $jar: GATEPOST_TEST_PGJDBC names its jar"
ln -sfn "$jar" "$place/postgresql.jar"

jtds=${GATEPOST_TEST_JTDS:-/usr/share/java/jtds.jar}
[ -n "${GATEPOST_TEST_JTDS:-}" ] || [ -e "$jtds" ] || debian_install libjtds-java
[ -e "$jtds" ] || fail "no jTDS at $jtds: GATEPOST_TEST_JTDS names its jar"
ln -sfn "$jtds" "$place/jtds.jar"

say "pgjdbc $({ "$java" -jar "$jar" || true; } | sed -n 's/^PostgreSQL JDBC Driver //p') and" \
    "$(basename "$(readlink -f "$jtds")" .jar) on $("$java" --version | sed -n 1p)"
