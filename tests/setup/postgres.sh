#!/usr/bin/env bash
# PostgreSQL 15 with psql, pgbench and pg_walinspect: Debian's own package.
set -euo pipefail
. "$(dirname "$0")/places.sh"

[ -x /usr/lib/postgresql/15/bin/postgres ] && [ -x /usr/lib/postgresql/15/bin/pgbench ] ||
    debian_install postgresql-15 postgresql-client-15
[ -e /usr/share/postgresql/15/extension/pg_walinspect.control ] || fail "PostgreSQL 15 is here, but pg_walinspect is not"
say "$(/usr/lib/postgresql/15/bin/postgres --version)"
