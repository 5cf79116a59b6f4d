#!/usr/bin/env bash
# ActiveMQ and a Java to run it: Debian's own packages. Debian starts no broker of its own accord: none of the
# package's instances is enabled.
set -euo pipefail
. "$(dirname "$0")/places.sh"

jar=/usr/share/activemq/bin/activemq.jar
if ! [ -e "$jar" ] || ! command -v java >/dev/null || ! command -v keytool >/dev/null; then
    debian_install activemq default-jre-headless
fi
version=$(dpkg-query --showformat '${Version}' --show activemq 2>/dev/null || echo "of unknown version")
[ -e "$jar" ] || fail "ActiveMQ $version has no $jar: install ActiveMQ Classic 5.17 or later there by hand"
say "ActiveMQ $version, $(java -version 2>&1 | head -n 1)"
