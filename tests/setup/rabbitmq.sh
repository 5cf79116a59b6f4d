#!/usr/bin/env bash
# RabbitMQ with its AMQP 1.0 plugin: Debian's own package. What the package would start of its own accord (a broker,
# and Erlang's port mapper) is not wanted: who needs a broker starts one of their own.
set -euo pipefail
. "$(dirname "$0")/places.sh"

server=/usr/lib/rabbitmq/bin/rabbitmq-server
services=/usr/sbin/policy-rc.d
if ! [ -x "$server" ]; then
    if [ "$(id -u)" = 0 ] && ! [ -e "$services" ]; then
        # Debian's way to say "install, and start nothing".
        trap 'rm -f "$services"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$services"
        chmod 755 "$services"
    fi
    debian_install rabbitmq-server
fi
version=$(dpkg-query --showformat '${Version}' --show rabbitmq-server 2>/dev/null || echo "of unknown version")
plugin=(/usr/lib/rabbitmq/lib/rabbitmq_server-*/plugins/rabbitmq_amqp1_0-*)
[ -e "${plugin[0]}" ] || fail "RabbitMQ $version has no plugin rabbitmq_amqp1_0: install 3.10 to 3.13 by hand"
say "RabbitMQ $version"
