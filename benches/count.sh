#!/usr/bin/env bash
# Instructions and system calls a call, both sides, user space: `benches/count.sh [WORKLOAD ...]`.
# Each workload runs with N and with 2N calls; the difference is the cost of N calls without start and end.
# mux-w1 to mux-w4 are those of the bare multiplexer.
#   benches/count.sh check     fails where a figure of benches/counts.tsv has grown by more than 5 %; what .ci/run runs
#   benches/count.sh accept    writes the figures of today into it
# Needs valgrind, and strace for system calls. See benches/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."
committed=benches/counts.tsv
mode=show
case ${1:-} in check | accept) mode=$1; shift;; esac
cargo build --release --quiet -p rpc-load
load=${CARGO_TARGET_DIR:-target}/release/rpc-load
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

# How many calls show the cost of one: as many as make the start small beside them.
calls() { case ${1#mux-} in w4) echo 20;; w5 | up) echo 20000;; w1) echo 1000;; *) echo 6400;; esac; }

# a_call COUNTER WORKLOAD N DIGITS
a_call() {
  local once twice
  once=$($1 "$2" "$3"); twice=$($1 "$2" $((2 * $3)))
  awk -v d="$4" -v total=$((twice - once)) -v n="$3" 'BEGIN {printf "%.*f\n", d, total / n}'
}

case $mode in
  show)
    printf '%-9s %14s %14s\n' workload instr/call syscalls/call
    for w in ${@:-w1 w2 w3 w4 w5 w6 note}; do
      case ${w#mux-} in w4) m=200;; w5 | up) m=100000;; w1) m=5000;; *) m=64000;; esac
      printf '%-9s %14s %14s\n' "$w" "$(a_call instructions "$w" "$(calls "$w")" 0)" "$(a_call syscalls "$w" $m 3)"
    done;;
  accept)
    { printf '# Instructions a call, both sides. Written by `benches/count.sh accept`; %s.\n' "$(rustc --version)"
      for w in w1 w2 w5 w6; do printf '%s\t%s\n' "$w" "$(a_call instructions "$w" "$(calls "$w")" 0)"; done
    } >"$dir/counts" && cp "$dir/counts" $committed
    cat $committed;;
  check)
    failed=0
    while IFS=$'\t' read -r -u 8 w before; do
      [[ $w == \#* ]] && continue
      now=$(a_call instructions "$w" "$(calls "$w")" 0)
      printf '%-4s %8s instructions a call, %8s committed, %+.1f %%\n' "$w" "$now" "$before" \
        "$(awk -v a="$now" -v b="$before" 'BEGIN {print (a / b - 1) * 100}')"
      if ((now * 100 > before * 105)); then failed=1; fi
    done 8<$committed
    if ((failed)); then
      echo "more than 5 % above $committed: find out why, or accept it by \`benches/count.sh accept\` and say in the commit what it buys" >&2
      exit 1
    fi;;
esac
