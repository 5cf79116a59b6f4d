# A RabbitMQ of one's own: AMQP 1.0 inside TLS on a free port of loopback, everything else in the folder of
# the run. Sourced after stage.sh, and started when `gatepost dev` runs: its certificate is the broker's too.
#
# Erlang finds its nodes through a process of its own (epmd) and lets whoever has the cookie in. Both are
# this run's, so that another broker on the machine is not met.

free_ports() {
    erl -noshell -boot no_dot_erlang -eval '
        Listen = fun(_) -> {ok, Socket} = gen_tcp:listen(0, [{ip, {127,0,0,1}}]), Socket end,
        [begin {ok, Port} = inet:port(Socket), io:format("~b ", [Port]) end || Socket <- lists:map(Listen, [1, 2, 3])],
        io:nl(), halt().'
}

# 16 random bytes in hexadecimal.
secret() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }

# $1 is the folder, $2 the port.
configure_rabbitmq() {
    local home=$1 amqp=$2
    secret >"$folder/broker.password"
    secret >"$home/.erlang.cookie"
    chmod 400 "$home/.erlang.cookie"
    cat >"$home/definitions.json" <<EOF
{"vhosts": [{"name": "/"}],
 "users": [{"name": "orders", "password": "$(cat "$folder/broker.password")", "tags": ""}],
 "permissions": [{"user": "orders", "vhost": "/", "configure": "", "write": ".*", "read": ".*"}],
 "queues": [
  {"name": "orders", "vhost": "/", "durable": true, "auto_delete": false,
   "arguments": {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "orders.dead"}},
  {"name": "orders.dead", "vhost": "/", "durable": true, "auto_delete": false, "arguments": {}}]}
EOF
    cat >"$home/rabbitmq.conf" <<EOF
listeners.tcp = none
listeners.ssl.1 = 127.0.0.1:$amqp
ssl_options.cacertfile = $GATEPOST_DEV_CA
ssl_options.certfile = $GATEPOST_DEV_DIR/certs/server.crt
ssl_options.keyfile = $GATEPOST_DEV_DIR/certs/server.key
ssl_options.verify = verify_none
ssl_options.fail_if_no_peer_cert = false
amqp1_0.default_user = none
load_definitions = $home/definitions.json
disk_free_limit.absolute = 50MB
log.console = true
log.file = false
EOF
    printf '[rabbitmq_amqp1_0].\n' >"$home/plugins"
    : >"$home/environment"
}

# With the queue `orders`, and another where it puts what is rejected. Sets `broker`, `queue` and `dead_letters`.
start_rabbitmq() {
    local home=$folder/rabbitmq amqp mapper distribution epmd rabbitmq
    mkdir -p "$home/data"
    read -r amqp mapper distribution < <(HOME=$home free_ports)
    (umask 077; configure_rabbitmq "$home" "$amqp")
    export ERL_EPMD_PORT=$mapper ERL_EPMD_ADDRESS=127.0.0.1
    epmd >"$folder/epmd.log" 2>&1 &
    epmd=$!
    # With input allowed the package's script becomes Erlang itself, which ends in order on SIGTERM.
    HOME=$home RABBITMQ_NODENAME=gatepost-$$@localhost RABBITMQ_DIST_PORT=$distribution RABBITMQ_ALLOW_INPUT=yes \
        RABBITMQ_CONF_ENV_FILE=$home/environment RABBITMQ_CONFIG_FILE=$home/rabbitmq.conf \
        RABBITMQ_ENABLED_PLUGINS_FILE=$home/plugins RABBITMQ_MNESIA_BASE=$home/data \
        RABBITMQ_LOG_BASE=$home RABBITMQ_LOGS=- \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-noinput -kernel inet_dist_use_interface {127,0,0,1}' \
        /usr/lib/rabbitmq/bin/rabbitmq-server >"$folder/rabbitmq.log" 2>&1 </dev/null &
    rabbitmq=$!
    # The broker first: it takes its name back from epmd.
    running+=("$rabbitmq" "$epmd")
    until grep -qs 'Server startup complete' "$folder/rabbitmq.log"; do
        kill -0 "$rabbitmq" 2>/dev/null || fail "RabbitMQ ended"
        sleep 0.2
    done
    broker=(--broker "amqps://localhost:$amqp" --broker-ca "$GATEPOST_DEV_CA"
        --broker-user orders --broker-password-file "$folder/broker.password")
    queue=/amq/queue/orders
    dead_letters=/amq/queue/orders.dead
    echo "ready on 127.0.0.1:$amqp"
}
