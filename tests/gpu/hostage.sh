#!/usr/bin/env bash
# Policy ZERO needs no SM: the hostage test, on small and middle sizes. Skipped (77) without two GPUs.
gpus=$("$1" info | grep -cE '^ +GPU [0-9]')
[ "$gpus" -ge 2 ] || exit 77
exec "$1" hostage all -n "$gpus" --max 16M
