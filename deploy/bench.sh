#!/usr/bin/env bash
# Durable writes per second of three nodes on this machine: `./x bench` calls it with the folder of the release binaries.
# Starts its own cluster in a temporary folder, runs `zyflow bench` at 1, 64 and 256 clients, prints one JSON object per run. Then
# `zyflow bench --sync`, in a cluster of its own: from a save in one of 20 checkouts of 50 files to the bytes on disk in the 19 others.
# With --reads instead: queries and lists, of now and of the past, then where caches of answers help, also in clusters of their own.
set -euo pipefail
bin="${1:?usage: bench.sh FOLDER-OF-BINARIES [--reads] [SECONDS] [SIZE]}"
if [ "${2:-}" = --reads ]; then
  "$bin/zyflow" -o json bench --reads --seconds "${3:-10}"
  redis="$(mktemp -d)"
  redis-server --port 0 --unixsocket "$redis/socket" --save "" --appendonly no >/dev/null &
  server=$!
  trap 'kill -TERM "$server" 2>/dev/null || true; rm -rf "$redis"' EXIT
  "$bin/zyflow" -o json bench --reads --caches --redis "redis+unix://$redis/socket" --seconds "${3:-10}"
  exit
fi
seconds="${2:-10}"
size="${3:-256}"

dir="$(mktemp -d)"
"$bin/zyflow" dev --nodes 3 --dir "$dir/dev" >"$dir/dev.log" 2>&1 &
dev=$!
stop() {
  [ -z "$dev" ] || { kill -TERM "$dev" 2>/dev/null || true; wait "$dev" 2>/dev/null || true; }
  dev=""
}
trap 'stop; rm -rf "$dir"' EXIT

for _ in $(seq 300); do
  "$bin/zyflow" --profile "$dir/dev/client.toml" --timeout 2s status >/dev/null 2>&1 && break
  kill -0 "$dev" 2>/dev/null || { cat "$dir/dev.log" >&2; exit 1; }
  read -rt 0.2 <> <(:) || true
done

for clients in 1 64 256; do
  "$bin/zyflow" --profile "$dir/dev/client.toml" -o json bench --clients "$clients" --seconds "$seconds" --size "$size"
done
stop

"$bin/zyflow" -o json bench --sync --seconds "$seconds"
