# What the scripts of the SQL Server examples share, beside stage.sh: a throw-away database on the server
# that GATEPOST_TEST_SQLSERVER names, or on the tests' scripted one, and gatepost in front of it. Sourced
# after stage.sh.

# The tests' scripted server, with the certificate of `gatepost dev`.
start_scripted() {
    cargo build --example tds_scripted
    printf '{"sa": "Aa1-scripted-administrator"}' >"$folder/users.json"
    "$binaries/examples/tds_scripted" --users "$folder/users.json" \
        --certificate "$GATEPOST_DEV_DIR/certs/server.crt" --key "$GATEPOST_DEV_DIR/certs/server.key" \
        >"$folder/scripted.log" 2>&1 &
    local scripted=$!
    running+=("$scripted")
    until grep -q '^listening on' "$folder/scripted.log"; do
        kill -0 "$scripted" 2>/dev/null || fail "the scripted server ended"
        sleep 0.1
    done
    GATEPOST_TEST_SQLSERVER="$(sed -n 's/^listening on //p' "$folder/scripted.log");sa;Aa1-scripted-administrator"
    GATEPOST_TEST_SQLSERVER_CA=$GATEPOST_DEV_CA
}

# GATEPOST_TEST_SQLSERVER is `HOST:PORT;USER;PASSWORD`, of a login that may create databases and logins.
# GATEPOST_TEST_SQLSERVER_CA is the certificate of who signed the server's, if the system does not know it.
# Without them the scripted server stands in.
find_sqlserver() {
    local user password
    [ -n "${GATEPOST_TEST_SQLSERVER:-}" ] || start_scripted
    IFS=';' read -r sqlserver user password <<<"$GATEPOST_TEST_SQLSERVER"
    [ -n "$password" ] || fail "GATEPOST_TEST_SQLSERVER is not HOST:PORT;USER;PASSWORD"
    sqlserver_ca=${GATEPOST_TEST_SQLSERVER_CA:-}
    (umask 077; printf %s "$password" >"$folder/admin.password")
    admin=(--sqlserver "$sqlserver" --user "$user" --password-file "$folder/admin.password")
    [ -z "$sqlserver_ca" ] || admin+=(--ca "$sqlserver_ca")
    echo "SQL Server at $sqlserver"
}

# A database of its own with the tables and roles of schema.sql. $1 is a program of the examples.
make_database() {
    local program=$1
    database=gatepost_example_$$
    undo+=("drop_database $program")
    printf 'CREATE DATABASE %s;\n' "$database" >"$folder/server.sql"
    "$program" script "${admin[@]}" --database master "$folder/server.sql"
    "$program" script "${admin[@]}" --database "$database" examples/parts/sqlserver/schema.sql
}

drop_database() {
    stop_gatepost
    printf 'DROP DATABASE %s;\n' "$database" >"$folder/drop.sql"
    "$1" script "${admin[@]}" --database master "$folder/drop.sql" >/dev/null
}

# gatepost in front of the server, with the identity provider and the certificates of `gatepost dev`. Its two
# applications stand for the two consumers.
start_gatepost() {
    local issuer ca=
    mkdir -p "$folder/gatepost/policies"
    issuer=$(sed -n 's/.*issuer: "\([^"]*\)".*/\1/p' "$GATEPOST_DEV_CONFIG")
    [ -z "$sqlserver_ca" ] || ca=", ca: $sqlserver_ca"
    cat >"$folder/gatepost/gatepost.yaml" <<EOF
installation: example$$
listen:
  sqlserver: {address: "127.0.0.1:0"}
tls: {certificate: $GATEPOST_DEV_DIR/certs/server.crt, private_key: {file: $GATEPOST_DEV_DIR/certs/server.key}}
identity_providers:
  dev: {issuer: "$issuer", audiences: ["gatepost-dev"], kind: oidc}
targets:
  shop:
    engine: sqlserver
    address: "$sqlserver"
    tls: {mode: verify-full$ca}
    databases: [$database]
    broker: {user: ${admin[3]}, password: {file: $folder/admin.password}}
policies: [policies]
audit: {directory: audit, durability: strict, signing_key: {file: $GATEPOST_DEV_DIR/certs/signing.key}}
EOF
    cat >"$folder/gatepost/policies/shop.yaml" <<EOF
version: 1
roles:
  orders_writer:
    target: shop
    database: $database
    grants: [{privileges: [insert], on: {tables: [dbo.inbox, dbo.orders]}}]
  payments_writer:
    target: shop
    database: $database
    grants: [{privileges: [insert], on: {tables: [dbo.inbox, dbo.payments]}}]
rules:
  - name: orders
    identity: {provider: dev, client_id: order-consumer}
    grant: {role: orders_writer, login_ttl: 30m, session_max: 8h}
  - name: payments
    identity: {provider: dev, client_id: analyst}
    grant: {role: payments_writer, login_ttl: 30m, session_max: 8h}
EOF
    "$gatepost" serve --config "$folder/gatepost/gatepost.yaml" >"$folder/gatepost.log" 2>&1 &
    proxy=$!
    running+=("$proxy")
    until door=$(sed -n 's/.*accepting SQL Server clients address=127.0.0.1:\([0-9]*\).*/\1/p' "$folder/gatepost.log") &&
        [ -n "$door" ]; do
        kill -0 "$proxy" 2>/dev/null || fail "gatepost ended before it was ready"
        sleep 0.1
    done
    echo "ready on localhost:$door"
}

stop_gatepost() {
    [ -n "${proxy:-}" ] || return 0
    kill -TERM "$proxy" 2>/dev/null || true
    wait "$proxy" || true
    proxy=
}

# The journal, when gatepost has ended: it is sound, and has a committed transaction for every row.
check_shop_journal() {
    stop_gatepost
    "$gatepost" audit verify --directory "$folder/gatepost/audit" --public-key "$GATEPOST_DEV_AUDIT_KEY"
    "$gatepost" audit show --directory "$folder/gatepost/audit" --json >"$folder/show.jsonl"
    sed 's/.* //' "$folder/rows.txt" | sort -u | while read -r id; do
        grep -F "\"$id\"" "$folder/show.jsonl" | grep -q '"committed"' || fail "the journal has no commit of $id"
    done
    echo "every row's message has its committed transaction in the journal"
}

# How the consumer with role $1 reaches the database, in `access`: with its token, through gatepost.
consumer_access() {
    local application=order-consumer
    [ "$1" = orders_writer ] || application=analyst
    access=(--sqlserver "localhost:$door" --database "$database"
        --token-file "$GATEPOST_DEV_DIR/tokens/$application" --ca "$GATEPOST_DEV_CA")
}

# The rows as an administrator sees them, in rows.txt.
read_rows() { "$1" rows "${admin[@]}" --database "$database" >"$folder/rows.txt"; }
