#!/usr/bin/env bash
# What the frameworks cost to build: `benches/build.sh [RUNS]`. A crate each that depends on rpc, tarpc and tonic, and on nothing
# else, with what a client and a server over TCP need; crates counted, and the build of all of them from nothing, `cargo build`
# and `cargo build --release`: CPU time, and time passed (median of RUNS, 3 by default). Needs a registry.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD runs=${1:-3}
dir=${CARGO_TARGET_DIR:-$root/target}/build-cost
rm -rf "$dir"
mkdir -p "$dir"
unset RUSTFLAGS
export CARGO_INCREMENTAL=0

declare -A needs=(
  [rpc]="rpc = { path = \"$root\" }"
  [rpc, tls]="rpc = { path = \"$root\", features = [\"tls\"] }"
  [tarpc]='tarpc = { version = "0.38", features = ["serde-transport-bincode", "tcp", "tokio1"] }'
  [tonic]='tonic = "0.14"
tonic-prost = "0.14"
prost = "0.14"
[build-dependencies]
tonic-prost-build = "0.14"'
)

median() { sort -n | awk '{v[NR]=$1} END {printf "%.1f", v[int((NR + 1) / 2)]}'; }

# Prints CPU seconds and seconds passed of a build from nothing.
build() {
  rm -rf "$dir/target"
  local start end
  start=$(date +%s.%N)
  /usr/bin/env bash -c 'TIMEFORMAT="%U %S"; time CARGO_TARGET_DIR='"$dir/target"' cargo build --quiet --offline '"$1" 2>"$dir/time"
  end=$(date +%s.%N)
  awk -v wall="$(awk -v a="$end" -v b="$start" 'BEGIN {print a - b}')" 'END {print $1 + $2, wall}' "$dir/time"
}

printf '| depends on | crates | `cargo build`, CPU | passed | `--release`, CPU | passed |\n|---|--:|--:|--:|--:|--:|\n'
for name in rpc "rpc, tls" tarpc tonic; do
  crate=$dir/${name//, /-}
  mkdir -p "$crate/src"
  printf '[package]\nname = "dependent"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n[dependencies]\n%s\n' "${needs[$name]}" \
    >"$crate/Cargo.toml"
  # A build script, as one that generates code has, so that what it depends on is built too.
  case $name in tonic) echo 'fn main() {}' >"$crate/build.rs";; esac
  echo 'fn main() {}' >"$crate/src/main.rs"
  cd "$crate"
  cargo fetch --quiet
  crates=$(cargo tree --prefix none --edges normal,build --format '{p}' | sed 's/ (.*//' | sort -u | grep -vc '^dependent ')
  row="| $name | $crates |"
  for profile in "" --release; do
    for _ in $(seq "$runs"); do build "$profile"; done >"$crate/times"
    row+=" $(cut -d' ' -f1 "$crate/times" | median) s | $(cut -d' ' -f2 "$crate/times" | median) s |"
  done
  printf '%s\n' "$row"
done
