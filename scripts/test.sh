#!/bin/sh
# Everything that has to pass before a change is taken: format, lints, unit and integration tests, guest boots, benches build.
#
#   scripts/test.sh                  (also what .ci/run does)
#
# It installs what the tests need with apt where it may (root or sudo without a password) and goes on without where it may not;
# what is then really missing fails with its own message.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"

step() { printf '\n== %s (%s)\n' "$*" "$(date -u +%H:%M:%S)"; }

# install COMMAND:PACKAGE... - installs the packages whose commands are missing; then those that had to make room, as qemu-utils of
# one version does for qemu-system-x86 of another.
install() {
    for _ in 1 2; do
        missing=
        for pair in "$@"; do
            command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair#*:}"
        done
        [ -n "$missing" ] || break
        fetch "$missing"
    done
}

# fetch PACKAGES - installs the packages of a list of words.
fetch() {
    as_root=
    [ "$(id -u)" = 0 ] || as_root="sudo -n"
    # A partly failed update is no reason to stop: what we need may well be there.
    $as_root apt-get -q update || true
    # shellcheck disable=SC2086  # a list of words
    DEBIAN_FRONTEND=noninteractive $as_root apt-get -q -y install --no-install-recommends $1 ||
        echo "test.sh: could not install: $1; going on without" >&2
}

step "tools"
# The window needs an X server, a window manager, and two of X's client libraries, which it loads when it starts and the
# window manager has too; the terminal display a terminal of its own.
install qemu-system-x86_64:qemu-system-x86 cc:gcc objdump:binutils tar:tar xz:xz-utils xorriso:xorriso Xvfb:xvfb 'openbox:openbox libx11-6 libxcursor1' setsid:util-linux qemu-img:qemu-utils
# Features that need libraries of the system: sound cards need ALSA's headers.
features=
alsa() { pkg-config --exists alsa 2>/dev/null; }
alsa || fetch "pkg-config libasound2-dev"
if alsa; then
    features="--features emu-frontend/cpal"
else
    echo "test.sh: ALSA's headers are missing; -audiodev cpal is not tested" >&2
fi
command -v cargo >/dev/null || {
    echo "test.sh: cargo is missing: install Rust first, for example from https://rustup.rs" >&2
    exit 1
}

step "format"
cargo fmt --all --check

step "lints"
cargo clippy --workspace --all-targets -- -D warnings
# shellcheck disable=SC2086  # two words or none
[ -z "$features" ] || cargo clippy -p emu-frontend --all-targets $features -- -D warnings

# The crates' own tests run with debug assertions and checks for overflow.
step "unit tests"
# shellcheck disable=SC2086
cargo test --workspace --exclude emu-tests --exclude emu-benches $features

step "guests"
scripts/guests.sh

# Guests and random instructions want an optimised emu.
step "emu"
cargo build --release -p emu-frontend

step "integration tests, boots"
# One at a time: guests keep real time, which they cannot on a host that runs more of them than it has cores.
cargo test --release -p emu-tests -p emu-benches --lib --bins --tests -- --test-threads=1

# What these do runs in regions, whatever it is, from the first time on.
step "faults, modes and system instructions in compiled code"
EMU_ACCEL=jit cargo test --release -p emu-tests --test hostile_code --test interrupts --test paging --test segmentation \
    --test self_modifying --test strings --test system --test task_switch --test threading

step "benches build"
cargo bench -p emu-benches --benches --no-run

step "passed"
