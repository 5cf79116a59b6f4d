#!/usr/bin/env bash
# The Python drivers that the end-to-end tests use, in a venv of their own.
set -euo pipefail
. "$(dirname "$0")/places.sh"

wanted="psycopg[binary]==3.3.* psycopg2-binary==2.9.* asyncpg==0.31.*"
# For SQL Server. python-tds does TLS by pyOpenSSL, and reads certificates in a way that 26 no longer has. mssql-python
# brings Microsoft's ODBC Driver 18, which takes three libraries from the system.
wanted+=" python-tds==1.17.1 pyOpenSSL==25.3.0 pymssql==2.4.6 mssql-python==1.16.0"
libraries="libltdl7 libkrb5-3 libgssapi-krb5-2"
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
# shellcheck disable=SC2086  # one word a package
"$place/bin/python" -c 'import mssql_python' 2>/dev/null || debian_install $libraries
say "python drivers: $("$place/bin/python" -c 'from importlib.metadata import version
print(" · ".join(f"{name} {version(name)}" for name in (
    "psycopg", "psycopg2-binary", "asyncpg", "python-tds", "pymssql", "mssql-python")))')"
