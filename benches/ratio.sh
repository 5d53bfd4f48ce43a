#!/usr/bin/env bash
# Calls a second of two contenders, in the same minutes: `benches/ratio.sh [threads] [w1 w2 w3 w4]`.
# `rpc` and the bare multiplexer, the server on one core and the client on another (SERVER and CLIENT, 0 and 1 by default), each
# with one thread; or, with `threads`, `rpc` with two threads on each side and with one, not kept to any core.
# Five rounds, in each of which both run one after the other. Prints medians with the lowest and the highest, and the median of
# the ratios of the rounds: what else the machine does changes from minute to minute, and changes both runs of a round alike.
# Needs taskset. See benches/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."
first='rpc' second='mux'
if [ "${1:-}" = threads ]; then shift; first='two' second='one'; fi
cargo build --release --quiet -p rpc-load
load=${CARGO_TARGET_DIR:-target}/release/rpc-load
rounds=5 dir=$(mktemp -d)
trap 'rm -rf "$dir"; kill $(jobs -p) 2>/dev/null || true' EXIT

# rate CONTENDER WORKLOAD COUNT: calls a second.
rate() {
  local workload=$2 count=$3 suffix='' threads=1 server="taskset -c ${SERVER:-0}" client="taskset -c ${CLIENT:-1}" endpoint pid
  case $1 in mux) suffix=-mux;; one) server='' client='';; two) threads=2 server='' client='';; esac
  rm -f "$dir"/in "$dir"/out; mkfifo "$dir/in"
  $server "$load" "serve$suffix" $threads <"$dir/in" >"$dir/out" & pid=$!
  exec 7>"$dir/in"
  until endpoint=$(grep -m1 '^tcp' "$dir/out"); do sleep 0.05; done
  $client "$load" "drive$suffix" "$endpoint" "$workload" "$count" $threads | sed 's|.* \([0-9]*\)/s$|\1|'
  exec 7>&-
  wait "$pid"
}

# middle FORMAT: median, lowest and highest of the lines.
middle() {
  sort -n | awk -v form="$1" '{v[NR]=$1} END {printf form, v[int((NR + 1) / 2)], v[1], v[NR]}'
}

printf '%-9s %30s %30s %20s\n' workload "$first, calls/s" "$second, calls/s" "$first / $second"
for workload in "${@:-w1 w2 w3 w4}"; do for w in $workload; do
  case $w in w1) n=100000;; w4) n=3000;; *) n=2000000;; esac
  rm -f "$dir"/*.rate
  for round in $(seq "$rounds"); do
    # Whoever comes second in one round comes first in the next.
    if ((round % 2)); then order="$first $second"; else order="$second $first"; fi
    for contender in $order; do
      rate "$contender" "$w" "$n" >>"$dir/$contender.rate"
    done
  done
  paste "$dir/$first.rate" "$dir/$second.rate" | awk '{print $1 / $2}' >"$dir/ratio.rate"
  printf '%-9s %30s %30s %20s\n' "$w" "$(middle '%d (%d to %d)' <"$dir/$first.rate")" \
    "$(middle '%d (%d to %d)' <"$dir/$second.rate")" "$(middle '%.2f (%.2f to %.2f)' <"$dir/ratio.rate")"
done; done
