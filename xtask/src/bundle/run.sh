#!/usr/bin/env bash
# Runs every case of this bundle on a device, compares with the expected outputs, times, and prints one table.
#
#   bash run.sh [DEVICE]     cuda unless said otherwise
set -euo pipefail
cd "$(dirname "$0")"
chmod +x ./tgc
exec python3 table.py "${1:-cuda}"
