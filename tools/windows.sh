#!/usr/bin/env bash
# Builds the workspace for Windows and runs its tests under Wine, so that a change on Linux cannot break Windows unseen.
#
#   tools/windows.sh                  what .ci/run runs
#   tools/windows.sh CARGO ARGS...    another cargo command for that target, for example: clippy -p rpc-transport
#
# For Debian and its kin; installs what is missing with apt-get (as root) and rustup. Settings: JOBS, CARGO_TARGET_DIR,
# WINDOWS_TEST_TIMEOUT (seconds for a test binary, 900). Caches under ${XDG_CACHE_HOME:-~/.cache}/rpc-windows: 0.7 GB for
# Wine, and 1.3 GB more where rustup does not deliver the target.
#
# Wine is not Windows. What it cannot show is skipped there only, and runs in .github/workflows/windows.yml; a test asks
# RPC_UNDER_WINE for it, which is set here:
#   - the flag of a pipe's first instance: Wine 8 ignores it, so a name cannot be found taken by it;
#   - speed: never read one from it.
# Not run here, because nothing in it depends on the system and Linux has just run it:
#   - rpc-core's simulations and bounds (it has no clock, socket or thread), and the tests of rpc-macros;
#   - `ui` (trybuild starts cargo, and there is none under Wine), `tidy` (reads the sources, starts cargo), doc tests, benches.
set -euo pipefail
cd "$(dirname "$0")/.."
target=x86_64-pc-windows-gnu
jobs=${JOBS:-$(nproc)}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/rpc-windows
mkdir -p "$cache/bin"
exec 9>"$cache/lock"
flock 9
wine=/usr/lib/wine/wine64 server=/usr/lib/wine/wineserver64 cc=x86_64-w64-mingw32-gcc-posix
unset RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER DISPLAY WAYLAND_DISPLAY

# The C linker, and Wine.
if ! command -v $cc >/dev/null || ! [ -x $wine ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc-mingw-w64-x86-64-posix wine64 >/dev/null
fi
export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER=$cc CC_x86_64_pc_windows_gnu=$cc
export CXX_x86_64_pc_windows_gnu=x86_64-w64-mingw32-g++-posix AR_x86_64_pc_windows_gnu=x86_64-w64-mingw32-ar

# Where rustup cannot deliver the target's std: Debian's compiler with its sources, unpacked in the cache, std built from
# them the way that rustc's own build does it. About two minutes, once.
debian_std() {
  local usr=$cache/root/usr
  if ! [ -e "$cache/rust.ok" ]; then
    rm -rf "$cache/debs" "$cache/root"
    mkdir -p "$cache/debs" "$cache/root"
    apt-get update -qq
    local version needs deb
    version=$(apt-cache policy rustc-web | awk '/Candidate:/ { print $2 }')
    needs=$(apt-cache depends --recurse --no-{recommends,suggests,conflicts,breaks,replaces,enhances} rustc-web |
      grep -E '^(libstd-rust-web|libllvm)' | sort -u | grep -vE '^libstd-rust-web-[0-9]')
    # shellcheck disable=SC2086 # a list of packages
    (cd "$cache/debs" && apt-get download -qq -o APT::Sandbox::User=root rustc-web rust-web-src $needs \
      "libstd-rust-web-$(cut -d. -f1,2 <<<"$version")")
    for deb in "$cache"/debs/*.deb; do dpkg-deb -x "$deb" "$cache/root"; done
    rm -rf "$cache/debs"
    touch "$cache/rust.ok"
  fi
  local tool
  for tool in rustc rustdoc; do
    printf '#!/bin/sh\nLD_LIBRARY_PATH=%s/lib/x86_64-linux-gnu${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec %s/bin/%s "$@"\n' \
      "$usr" "$usr" $tool >"$cache/bin/$tool"
    chmod +x "$cache/bin/$tool"
  done
  export RUSTC=$cache/bin/rustc RUSTDOC=$cache/bin/rustdoc
  local lib=$usr/lib/rustlib/$target/lib
  [ -e "$lib/ok" ] && return
  rm -rf "$lib" "$cache/std"
  mkdir -p "$lib"
  # -Zforce-unstable-if-unmarked: std's own dependencies must not be visible to the crates built with it.
  (cd "$(echo "$usr"/src/rustc-*/library)" && RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$cache/std \
    RUSTFLAGS="-Zforce-unstable-if-unmarked -Cembed-bitcode=yes -Ccodegen-units=1" \
    cargo build --locked -j "$jobs" --release --manifest-path sysroot/Cargo.toml --target $target \
    --features panic-unwind,backtrace)
  cp "$cache/std/$target"/release/deps/*.rlib "$lib/"
  rm -rf "$cache/std"
  touch "$lib/ok"
}
timeout 180 rustup target add $target >/dev/null 2>&1 || debian_std

# A Wine without a screen. Wine 8 has no bcryptprimitives.dll, from which Rust's std takes its random numbers: it gets one.
export WINEPREFIX=$cache/prefix WINEDEBUG=${WINEDEBUG:--all} WINEDLLOVERRIDES='mscoree,mshtml,winemenubuilder.exe='
if ! [ -e "$WINEPREFIX/ok" ]; then
  rm -rf "$WINEPREFIX"
  timeout 300 $wine wineboot -i
  $server -w
  printf '%s\n' '#include <windows.h>' 'BOOLEAN NTAPI SystemFunction036(PVOID, ULONG);' \
    '__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE p, SIZE_T n) { return SystemFunction036(p, (ULONG)n); }' \
    >"$cache/prng.c"
  random=$WINEPREFIX/drive_c/windows/system32/bcryptprimitives.dll
  [ -e "$random" ] || $cc -O2 -shared -o "$random" "$cache/prng.c" -ladvapi32
  touch "$WINEPREFIX/ok"
fi
printf '#!/bin/sh\nunset LD_LIBRARY_PATH\nexec timeout -k 5 "${WINDOWS_TEST_TIMEOUT:-900}" %s "$@"\n' $wine >"$cache/bin/run"
chmod +x "$cache/bin/run"
export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER=$cache/bin/run
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target} RPC_UNDER_WINE=1
# Ends the Wine processes of this cache only.
trap '$server -k >/dev/null 2>&1 || true' EXIT
flock -u 9
exec 9>&-

# One server for all test binaries: starting it takes longer than most of them.
$server -p
if [ $# -gt 0 ]; then
  command=$1
  shift
  cargo "$command" --target $target -j "$jobs" "$@"
  exit
fi

# All of it must compile, tests and examples too; what is run is told above.
cargo check --target $target -j "$jobs" --workspace --all-targets
cargo test --target $target -j "$jobs" -p rpc-transport --lib
cargo test --target $target -j "$jobs" -p rpc --lib --test hygiene
# Wine's own delays show in the largest of them: what fails is run once more by itself, and must pass then.
log=$cache/it.log
if ! cargo test --target $target -j "$jobs" -p rpc --test it 2>&1 | tee "$log"; then
  mapfile -t failed < <(sed -n 's/^test \(.*\) \.\.\. FAILED\r\{0,1\}$/\1/p' "$log")
  if ((${#failed[@]} == 0 || ${#failed[@]} > 5)); then exit 1; fi
  printf 'once more: %s\n' "${failed[@]}"
  cargo test --target $target -j "$jobs" -p rpc --test it -- --exact "${failed[@]}"
fi
cargo test --target $target -j "$jobs" -p rpc-core --lib --test connection_rules --test session_rules --test session_ends \
  --test protocol_examples
