# What the scripts of the SQL Server examples share, beside stage.sh: a throw-away database on the server
# that GATEPOST_TEST_SQLSERVER names, and how consumers reach it. Sourced after stage.sh.

# GATEPOST_TEST_SQLSERVER is `HOST:PORT;USER;PASSWORD`, of a login that may create databases and logins.
# GATEPOST_TEST_SQLSERVER_CA is the certificate of who signed the server's, if the system does not know it.
find_sqlserver() {
    local user password
    [ -n "${GATEPOST_TEST_SQLSERVER:-}" ] ||
        fail "set GATEPOST_TEST_SQLSERVER='HOST:PORT;USER;PASSWORD' (and GATEPOST_TEST_SQLSERVER_CA=FILE): no SQL Server is brought along"
    IFS=';' read -r sqlserver user password <<<"$GATEPOST_TEST_SQLSERVER"
    [ -n "$password" ] || fail "GATEPOST_TEST_SQLSERVER is not HOST:PORT;USER;PASSWORD"
    sqlserver_ca=${GATEPOST_TEST_SQLSERVER_CA:-}
    (umask 077; printf %s "$password" >"$folder/admin.password")
    admin=(--sqlserver "$sqlserver" --user "$user" --password-file "$folder/admin.password")
    [ -z "$sqlserver_ca" ] || admin+=(--ca "$sqlserver_ca")
    echo "SQL Server at $sqlserver"
}

# A database of its own with the tables and roles of schema.sql. $1 is a program of the examples, the others
# are roles: each gets a login, its password in a file.
make_database() {
    local program=$1 role login password; shift
    database=gatepost_example_$$
    logins=()
    undo+=("drop_database $program")
    printf 'CREATE DATABASE %s;\n' "$database" >"$folder/server.sql"
    : >"$folder/members.sql"
    for role in "$@"; do
        # Not ${database}_…: to Babelfish that is the role in the database.
        login=gatepost_login_$$_$role
        # Long, and of every kind that a password policy asks for.
        password=Aa1-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
        (umask 077; printf %s "$password" >"$folder/$role.password")
        logins+=("$login")
        printf "GO\nCREATE LOGIN %s WITH PASSWORD = N'%s';\n" "$login" "$password" >>"$folder/server.sql"
        printf 'CREATE USER %s FOR LOGIN %s;\nGO\nALTER ROLE %s ADD MEMBER %s;\nGO\n' \
            "$login" "$login" "$role" "$login" >>"$folder/members.sql"
    done
    "$program" script "${admin[@]}" --database master "$folder/server.sql"
    rm "$folder/server.sql"
    "$program" script "${admin[@]}" --database "$database" examples/parts/sqlserver/schema.sql
    "$program" script "${admin[@]}" --database "$database" "$folder/members.sql"
}

drop_database() {
    local program=$1 login
    for login in "${logins[@]}"; do
        printf 'DROP USER %s;\n' "$login" >"$folder/drop.sql"
        "$program" script "${admin[@]}" --database "$database" "$folder/drop.sql" >/dev/null
    done
    printf 'DROP DATABASE %s;\n' "$database" >"$folder/drop.sql"
    for login in "${logins[@]}"; do printf 'GO\nDROP LOGIN %s;\n' "$login" >>"$folder/drop.sql"; done
    "$program" script "${admin[@]}" --database master "$folder/drop.sql" >/dev/null
}

# How the consumer with role $1 reaches the database, in `access`.
consumer_access() {
    access=(--sqlserver "$sqlserver" --database "$database"
        --user "gatepost_login_$$_$1" --password-file "$folder/$1.password")
    [ -z "$sqlserver_ca" ] || access+=(--ca "$sqlserver_ca")
}

# The rows as an administrator sees them, in rows.txt.
read_rows() { "$1" rows "${admin[@]}" --database "$database" >"$folder/rows.txt"; }
