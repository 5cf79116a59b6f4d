#!/usr/bin/env bash
# rsyslog with TLS: Debian's own packages.
set -euo pipefail
. "$(dirname "$0")/places.sh"

PATH=$PATH:/usr/sbin
module=(/usr/lib/*/rsyslog/lmnsd_gtls.so)
command -v rsyslogd >/dev/null && [ -e "${module[0]}" ] || debian_install rsyslog rsyslog-gnutls
say "rsyslog $(rsyslogd -v | sed -n 's/^rsyslogd *\([0-9.]*\).*/\1/p')"
