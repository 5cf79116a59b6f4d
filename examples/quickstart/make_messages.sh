#!/usr/bin/env bash
# Writes messages.jsonl: 1,000 orders, always the same; the 500th is one that the database refuses.
set -euo pipefail
cd "$(dirname "$0")"
awk 'BEGIN {
    split("Ada Grace Edsger Barbara Tony Frances Donald Margaret", names, " ")
    for (n = 1; n <= 1000; n++) {
        cents = n == 500 ? -1 : (n * 7919) % 9973 + 1
        printf "{\"id\":\"msg-%04d\",\"order\":%d,\"customer\":\"%s\",\"cents\":%d}\n", n, n, names[n % 8 + 1], cents
    }
}' > messages.jsonl
