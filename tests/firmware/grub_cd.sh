#!/bin/bash
# GRUB's rescue CD (package grub-rescue-pc) reaches its prompt under the built-in BIOS and under SeaBIOS (package seabios), takes keys
# typed by the monitor's sendkey, and lists the CD. Run by hand, after "cargo build --release -p emu-frontend":
#
#   tests/firmware/grub_cd.sh [EMU]
#
# The screen is read from video memory by the monitor's xp. A minute for each BIOS at most.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
emu=${1:-${CARGO_TARGET_DIR:-$root/target}/release/emu}
iso=/usr/lib/grub-rescue/grub-rescue-cdrom.iso
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
[ -r "$iso" ] || { echo "grub_cd.sh: $iso is missing: install grub-rescue-pc" >&2; exit 1; }

# screen - the text of the screen, one line.
screen() {
    : >"$log"
    echo "xp /2000hx 0xb8000" >&3
    sleep 1
    grep -ao '0x[0-9a-f]\{4\}\b' "$log" | while read -r cell; do printf "\\x${cell:4:2}"; done | tr '\0' ' '
}

# wait_for TEXT - until the screen shows it.
wait_for() {
    for _ in $(seq 30); do
        shown=$(screen)
        case $shown in *"$1"*) return 0 ;; esac
    done
    echo "grub_cd.sh: $name: the screen never showed '$1': $shown" >&2
    exit 1
}

keys() {
    for key in "$@"; do
        echo "sendkey $key" >&3
        sleep 0.5
    done
}

check() {
    name=$1
    shift
    log=$(mktemp)
    mkfifo "$log.in"
    "$emu" "$@" -display none -boot d -cdrom "$iso" -monitor stdio <"$log.in" >"$log" 2>&1 &
    exec 3>"$log.in"
    wait_for "GNU GRUB"
    keys c
    wait_for "grub> "
    keys l s ret
    wait_for "(cd) (cd,msdos1)"
    echo quit >&3
    wait $! || { echo "grub_cd.sh: $name: emu failed" >&2; exit 1; }
    exec 3>&-
    rm "$log" "$log.in"
    echo "$name: GRUB's prompt lists the CD"
}

check "built-in BIOS"
check SeaBIOS -bios bios-256k.bin
