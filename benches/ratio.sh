#!/usr/bin/env bash
# Calls a second of `rpc` beside those of the bare multiplexer: `benches/ratio.sh [w1 w2 w3 w4]`.
# Five rounds, in each of which both systems run one after the other, server on one core and client on another (SERVER and
# CLIENT, 0 and 1 by default). Prints medians with the lowest and the highest, and the median of the ratios of the rounds:
# what else the machine does changes from minute to minute, and changes both runs of a round alike.
# Needs taskset. See benches/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --quiet -p rpc-load
load=${CARGO_TARGET_DIR:-target}/release/rpc-load
rounds=5 dir=$(mktemp -d)
trap 'rm -rf "$dir"; kill $(jobs -p) 2>/dev/null || true' EXIT

# rate SUFFIX WORKLOAD COUNT: calls a second, of `rpc` or with the suffix -mux of the multiplexer.
rate() {
  local suffix=$1 workload=$2 count=$3 endpoint pid
  rm -f "$dir"/in "$dir"/out; mkfifo "$dir/in"
  taskset -c "${SERVER:-0}" "$load" "serve$suffix" <"$dir/in" >"$dir/out" & pid=$!
  exec 7>"$dir/in"
  until endpoint=$(grep -m1 '^tcp' "$dir/out"); do sleep 0.05; done
  taskset -c "${CLIENT:-1}" "$load" "drive$suffix" "$endpoint" "$workload" "$count" | sed 's|.* \([0-9]*\)/s$|\1|'
  exec 7>&-
  wait "$pid"
}

# middle FORMAT: median, lowest and highest of the lines.
middle() {
  sort -n | awk -v form="$1" '{v[NR]=$1} END {printf form, v[int((NR + 1) / 2)], v[1], v[NR]}'
}

printf '%-9s %30s %30s %20s\n' workload 'rpc, calls/s' 'mux, calls/s' 'rpc / mux'
for workload in "${@:-w1 w2 w3 w4}"; do for w in $workload; do
  case $w in w1) n=100000;; w4) n=3000;; *) n=2000000;; esac
  rm -f "$dir"/*.rate
  for round in $(seq "$rounds"); do
    # Whoever comes second in one round comes first in the next.
    if ((round % 2)); then order='rpc mux'; else order='mux rpc'; fi
    for system in $order; do
      if [ "$system" = rpc ]; then suffix=; else suffix=-mux; fi
      rate "$suffix" "$w" "$n" >>"$dir/$system.rate"
    done
  done
  paste "$dir/rpc.rate" "$dir/mux.rate" | awk '{print $1 / $2}' >"$dir/ratio.rate"
  printf '%-9s %30s %30s %20s\n' "$w" "$(middle '%d (%d to %d)' <"$dir/rpc.rate")" \
    "$(middle '%d (%d to %d)' <"$dir/mux.rate")" "$(middle '%.2f (%.2f to %.2f)' <"$dir/ratio.rate")"
done; done
