#!/usr/bin/env bash
# What a service of 50 methods costs to build: `benches/fifty.sh [RUNS]`. Writes two crates that differ by the service, its
# implementor and one call of each method, builds both, and prints user CPU time of the crate alone (median of RUNS,
# 5 by default; what it depends on is built before), the size of what the attribute writes, and of the binaries' code.
# Needs binutils. The expansion is printed by an unstable flag of rustc, for which RUSTC_BOOTSTRAP is set.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD runs=${1:-5}
dir=${CARGO_TARGET_DIR:-$root/target}/fifty
rm -rf "$dir/with" "$dir/without"
mkdir -p "$dir"/{with,without}/src
# Without what an earlier build left behind: a touched crate that has not changed is hardly compiled.
export CARGO_TARGET_DIR=$dir/target CARGO_INCREMENTAL=0
unset RUSTFLAGS

# ---- the crates ---------------------------------------------------------------------------------------------------------

cat >"$dir/Cargo.toml" <<EOF
[workspace]
members = ["with", "without"]
resolver = "3"
EOF
cp Cargo.lock "$dir/"
for crate in with without; do
  cat >"$dir/$crate/Cargo.toml" <<EOF
[package]
name = "$crate"
version = "0.0.0"
edition = "2024"
[dependencies]
rpc = { path = "$root" }
futures = "0.3"
serde = { version = "1", features = ["derive"] }
thiserror = "2"
tokio = { version = "1", features = ["macros", "rt-multi-thread"] }
EOF
  cat >"$dir/$crate/src/types.rs" <<'EOF'
use serde::{Deserialize, Serialize};
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Row { pub id: u64, pub name: String, pub tags: Vec<String> }
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Stats { pub rows: u64, pub bytes: u64 }
#[derive(Debug, Clone, PartialEq, thiserror::Error, Serialize, Deserialize)]
#[error("there is none")]
pub struct Missing;
EOF
done

# method NUMBER: its form in $form, and its head, body and call.
method() {
  local n=$1 text rows
  text='"key"' rows='futures::stream::iter([Row::default()])'
  case $((n % 10)) in
    0 | 5) head="async fn m$n(&self, key: &str) -> rpc::Result<Option<Row>, Missing>" body="Ok(Some(Row { name: key.to_owned(), ..Row::default() }))" call="client.m$n($text).await?" ;;
    1 | 6) head="async fn m$n(&self, row: &Row, at: u64) -> rpc::Result<Stats>" body="Ok(Stats { rows: at, bytes: row.id })" call="client.m$n(&Row::default(), 1).await?" ;;
    2) head="async fn m$n(&self, rows: &[Row], bytes: Vec<u8>) -> rpc::Result<Vec<u8>, Missing>" body="Ok(if rows.is_empty() { bytes } else { Vec::new() })" call="client.m$n(&[Row::default()], vec![1]).await?" ;;
    3) head="async fn m$n(&self, cx: &rpc::Context, row: Row) -> rpc::Result<Row>" body="Ok(Row { id: u64::from(cx.deadline().is_some()), ..row })" call="client.m$n(Row::default()).await?" ;;
    4) head="async fn m$n(&self, n: u32, text: String, on: bool) -> rpc::Result<u64>" body="Ok(u64::from(n) + text.len() as u64 + u64::from(on))" call="client.m$n(1, $text.to_owned(), true).await?" ;;
    7) head="async fn m$n(&self, prefix: &str) -> rpc::Result<Streaming<Row>, Missing>" body="Ok(std::iter::once(Row { name: prefix.to_owned(), ..Row::default() }).collect())" call="client.m$n($text).await?" ;;
    8) if ((n % 20 == 8)); then
      head="async fn m$n(&self, mut rows: Streaming<Row>) -> rpc::Result<Stats>" body="let mut seen = 0; while let Some(row) = rows.next().await { seen += row?.id; } Ok(Stats { rows: seen, bytes: 0 })"
    else
      head="async fn m$n(&self, rows: Streaming<Row>) -> rpc::Result<Streaming<Row>>" body="Ok(rows)"
    fi
    call="client.m$n($rows).await?" ;;
    9) head="async fn m$n(&self, line: &str) -> rpc::Result<()>" body="let _ = line; Ok(())" call="client.m$n($text).await?" ;;
  esac
}

{
  printf 'use rpc::Streaming;\nuse crate::types::*;\n#[rpc::service]\npub trait Fifty {\n'
  for n in $(seq 50); do
    method "$n"
    ((n % 10 == 9)) && printf '    #[rpc(oneway)]\n'
    printf '    %s;\n' "${head/mut rows/rows}"
  done
  printf '}\n'
} >"$dir/with/src/service.rs"
{
  printf 'mod service;\nmod types;\nuse rpc::{Server, Streaming};\nuse service::*;\nuse types::*;\nstruct Store;\nimpl Fifty for Store {\n'
  for n in $(seq 50); do method "$n"; printf '    %s { %s }\n' "$head" "$body"; done
  printf '}\n#[tokio::main]\nasync fn main() -> Result<(), Box<dyn std::error::Error>> {\n'
  printf '    let server = Server::builder().service(FiftyServer::new(Store)).listen("tcp://127.0.0.1:0").await?;\n'
  printf '    let client: FiftyClient = rpc::connect(server.endpoint()).await?;\n'
  for n in $(seq 50); do method "$n"; printf '    let _ = %s;\n' "$call"; done
  printf '    Ok(())\n}\n'
} >"$dir/with/src/main.rs"
cat >"$dir/without/src/main.rs" <<'EOF'
#![allow(dead_code)]
mod types;
#[rpc::service]
trait Nothing {}
struct Store;
impl Nothing for Store {}
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = rpc::Server::builder().service(NothingServer::new(Store)).listen("tcp://127.0.0.1:0").await?;
    let _client: NothingClient = rpc::connect(server.endpoint()).await?;
    Ok(())
}
EOF

# ---- the figures --------------------------------------------------------------------------------------------------------

cd "$dir"
TIMEFORMAT=%U

# seconds CRATE COMMAND...: user CPU of building the crate alone.
seconds() {
  local crate=$1 run
  shift
  cargo "$@" -p "$crate" --quiet
  for run in $(seq "$runs"); do
    touch "$crate/src/main.rs"
    { time cargo "$@" -p "$crate" --quiet; } 2>&1
  done | sort -n | sed -n "$(((runs + 1) / 2))p"
}

printf '%-34s %10s %10s\n' "" without with
printf '%-34s %10s %10s\n' "cargo check, user s" "$(seconds without check)" "$(seconds with check)"
printf '%-34s %10s %10s\n' "cargo build, user s" "$(seconds without build)" "$(seconds with build)"
printf '%-34s %10s %10s\n' "cargo build --release, user s" "$(seconds without build --release)" "$(seconds with build --release)"
code() { size -A "$CARGO_TARGET_DIR/release/$1" | awk '$1 == ".text" {print $2}'; }
"$CARGO_TARGET_DIR/release/with" # it works
printf '%-34s %10s %10s\n' "release binary, .text bytes" "$(code without)" "$(code with)"
RUSTC_BOOTSTRAP=1 cargo rustc -p with --profile check --quiet -- -Zunpretty=expanded |
  awk '/^mod service \{/ {on=1; next} /^}/ {on=0} on' >expanded.rs
printf '%-34s %10s %10s\n' "the trait as written" "$(wc -l <with/src/service.rs) lines" "$(wc -c <with/src/service.rs) bytes"
printf '%-34s %10s %10s\n' "and as expanded" "$(wc -l <expanded.rs) lines" "$(wc -c <expanded.rs) bytes"
