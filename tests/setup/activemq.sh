#!/usr/bin/env bash
# ActiveMQ and a Java to run it: Debian's own packages. No service is started.
set -euo pipefail
. "$(dirname "$0")/places.sh"

jar=/usr/share/activemq/bin/activemq.jar
if ! [ -e "$jar" ] || ! command -v java >/dev/null || ! command -v keytool >/dev/null; then
    # The package's scripts start its service where services may be started; this machine's broker stays off.
    if [ -e /run/systemd/system ] && [ "$(id -u)" = 0 ] && ! [ -e /etc/systemd/system/activemq.service ]; then
        systemctl mask activemq.service >/dev/null 2>&1 || true
    fi
    debian_install activemq default-jre-headless
fi
version=$(dpkg-query --showformat '${Version}' --show activemq 2>/dev/null || echo "of unknown version")
[ -e "$jar" ] || fail "activemq $version has no $jar: install ActiveMQ Classic 5.17 or later there by hand"
say "ActiveMQ $version, $(java -version 2>&1 | head -n 1)"
