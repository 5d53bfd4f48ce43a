#!/usr/bin/env bash
# Instructions and system calls a call, both sides, user space: `benches/count.sh [WORKLOAD ...]`.
# Each workload runs with N and with 2N calls; the difference is the cost of N calls without start and end.
# mux-w1 to mux-w4 are those of the bare multiplexer.
# Needs valgrind and strace. See benches/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --quiet --bench load
load=$(ls -t "${CARGO_TARGET_DIR:-target}"/release/deps/load-* | grep -v '\.d$' | head -1)
dir=$(mktemp -d)
trap 'rm -rf "$dir"; kill $(jobs -p) 2>/dev/null || true' EXIT

# run PREFIX WORKLOAD COUNT: server and client, each behind the words of PREFIX with % replaced by the side.
run() {
  local prefix=$1 workload=${2#mux-} count=$3 endpoint pid mux=
  case $2 in mux-*) mux=-mux;; esac
  rm -f "$dir"/in "$dir"/out; mkfifo "$dir/in"
  ${prefix//%/server} "$load" serve$mux <"$dir/in" >"$dir/out" 2>/dev/null & pid=$!
  exec 7>"$dir/in"
  until endpoint=$(grep -m1 '^tcp' "$dir/out"); do sleep 0.05; done
  ${prefix//%/client} "$load" drive$mux "$endpoint" "$workload" "$count" >/dev/null 2>&1
  exec 7>&-
  wait "$pid"
}

instructions() { # total of both sides
  run "valgrind --tool=callgrind --callgrind-out-file=$dir/%.callgrind" "$1" "$2"
  awk '/^(totals|summary):/ {sum[FILENAME]=$2} END {for (f in sum) t+=sum[f]; print t}' "$dir"/*.callgrind
}

syscalls() {
  run "strace -f -c -o $dir/%.strace" "$1" "$2"
  awk '$NF=="total" {t+=$(NF-1)==""?0:($4~/^[0-9]+$/?$4:$3)} END {print t}' "$dir"/*.strace
}

printf '%-9s %14s %14s\n' workload instr/call syscalls/call
for workload in "${@:-w1 w2 w3 w4 w5 w6 note}"; do for w in $workload; do
  case ${w#mux-} in w4) n=20 m=200;; w5|up) n=20000 m=100000;; w1) n=1000 m=5000;; *) n=6400 m=64000;; esac
  i1=$(instructions "$w" $n); i2=$(instructions "$w" $((2 * n)))
  s1=$(syscalls "$w" $m); s2=$(syscalls "$w" $((2 * m)))
  awk -v w="$w" -v i=$((i2 - i1)) -v n=$n -v s=$((s2 - s1)) -v m=$m 'BEGIN {printf "%-9s %14.0f %14.3f\n", w, i / n, s / m}'
done; done
