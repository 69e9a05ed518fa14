#!/bin/bash
# memtest86+ (package memtest86+) from an isolinux CD tests 64 MiB: its first pass of all tests ends without an error. Needs xorriso and
# what scripts/guests.sh fetches. Run by hand, after "cargo build --release -p emu-frontend":
#
#   tests/firmware/memtest_cd.sh [EMU] [PICTURE.png]
#
# The screen is read from video memory by the monitor's xp; a picture of the last screen is kept if a file is named.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
emu=${1:-${CARGO_TARGET_DIR:-$root/target}/release/emu}
picture=${2:-}
firmware=${EMU_CACHE:-$root/cache}/firmware
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT

for file in isolinux.bin ldlinux.c32 memtest86+x64.bin; do
    [ -s "$firmware/$file" ] || { echo "memtest_cd.sh: $firmware/$file is missing: run scripts/guests.sh firmware" >&2; exit 1; }
done
mkdir -p "$folder/cd/isolinux"
cp "$firmware/isolinux.bin" "$firmware/ldlinux.c32" "$folder/cd/isolinux/"
cp "$firmware/memtest86+x64.bin" "$folder/cd/isolinux/memtest"
printf 'DEFAULT memtest\nPROMPT 0\nLABEL memtest\n  LINUX memtest\n' >"$folder/cd/isolinux/isolinux.cfg"
xorriso -as mkisofs -quiet -o "$folder/cd.iso" -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot -boot-load-size 4 \
    -boot-info-table "$folder/cd" 2>/dev/null

mkfifo "$folder/in"
"$emu" -m 64 -display none -boot d -cdrom "$folder/cd.iso" -monitor stdio <"$folder/in" >"$folder/out" 2>&1 &
exec 3>"$folder/in"

# The text of the screen, one line.
screen() {
    : >"$folder/out"
    echo "xp /2000hx 0xb8000" >&3
    sleep 2
    grep -ao '0x[0-9a-f]\{4\}\b' "$folder/out" | while read -r cell; do printf "\\x${cell:4:2}"; done | tr '\0' ' '
}

start=$(date +%s)
while :; do
    sleep 10
    shown=$(screen)
    passed=$(($(date +%s) - start))
    # "Pass: N" counts finished passes, "Errors: N" what was found.
    pass=$(grep -ao 'Pass: *[0-9]\+ ' <<<"$shown" | grep -o '[0-9]\+' || true)
    errors=$(grep -ao 'Errors: *[0-9]\+' <<<"$shown" | grep -o '[0-9]\+' || true)
    [ -z "$picture" ] || { echo "screendump $picture" >&3 && sleep 1; }
    if [ "${errors:-0}" != 0 ]; then
        echo "memtest_cd.sh: $errors errors after $passed s: $shown" >&2
        exit 1
    fi
    if [ "${pass:-0}" != 0 ]; then
        echo "the first pass ended after $passed s without errors"
        echo quit >&3
        wait $! || { echo "memtest_cd.sh: emu failed" >&2; exit 1; }
        exit 0
    fi
    if [ "$passed" -gt 3600 ]; then
        echo "memtest_cd.sh: no pass in an hour: $shown" >&2
        exit 1
    fi
done
