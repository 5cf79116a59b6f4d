#!/usr/bin/env bash
# A C compiler: Rust links with it, and the cryptography library is C and assembly.
set -euo pipefail
. "$(dirname "$0")/places.sh"

command -v cc >/dev/null || debian_install gcc libc6-dev
# mssql-tds, one of the drivers of the tests, needs OpenSSL; gatepost does not.
{ command -v pkg-config >/dev/null && pkg-config --exists openssl; } || debian_install libssl-dev pkg-config
say "$(cc --version | sed -n 1p)"
