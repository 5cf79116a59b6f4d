#!/usr/bin/env bash
# The Python drivers that the end-to-end tests use, in a venv of their own.
set -euo pipefail
. "$(dirname "$0")/places.sh"

wanted="psycopg[binary]==3.3.* psycopg2-binary==2.9.* asyncpg==0.31.*"
place=$tools/python
if [ "$(cat "$place/ready" 2>/dev/null)" != "$wanted" ]; then
    command -v python3 >/dev/null || debian_install python3 python3-venv
    rm -rf "$place"
    python3 -m venv "$place" 2>"$tools/venv.log" ||
        { debian_install python3-venv && rm -rf "$place" && python3 -m venv "$place"; } ||
        fail "python3 cannot make a venv"
    say "installing $wanted (PyPI)"
    # shellcheck disable=SC2086  # one word a package
    "$place/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: $wanted ||
        fail "pip could not install the drivers: is the package index reachable?"
    echo "$wanted" >"$place/ready"
fi
say "python drivers: $("$place/bin/python" -c 'import psycopg, psycopg2, asyncpg
print("psycopg", psycopg.__version__, "· psycopg2", psycopg2.__version__.split()[0], "· asyncpg", asyncpg.__version__)')"
