#!/bin/bash
# memtest86+ (package memtest86+) from an isolinux CD tests 64 MiB: its first pass of all tests ends without an error under emu's own BIOS,
# under SeaBIOS, and, to compare with, under qemu-system-x86_64; then the texts of the screens are the same but for what has to differ:
# speeds, time, the processor and its caches, how far the next pass has come, and how much memory firmware keeps for tables (QEMU rounds
# the ACPI tables up to 128 KiB). Needs xorriso, imagemagick, qemu-system-x86 and what scripts/guests.sh fetches. Run by hand, after
# "cargo build --release -p emu-frontend"; it takes some minutes for each of the three:
#
#   tests/firmware/memtest_cd.sh [EMU] [FOLDER]
#
# The screens are read from video memory by the monitors' xp, printed, and left as pictures in FOLDER if one is named.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
emu=${1:-${CARGO_TARGET_DIR:-$root/target}/release/emu}
pictures=${2:-}
firmware=${EMU_CACHE:-$root/cache}/firmware
folder=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill "$pid" 2>/dev/null || true; rm -rf "$folder"' EXIT

# Seconds for the first pass, on a busy host too.
patience=3600

die() {
    echo "memtest_cd.sh: $*" >&2
    exit 1
}

for file in isolinux.bin ldlinux.c32 memtest86+x64.bin; do
    [ -s "$firmware/$file" ] || die "$firmware/$file is missing: run scripts/guests.sh firmware"
done
mkdir -p "$folder/cd/isolinux"
cp "$firmware/isolinux.bin" "$firmware/ldlinux.c32" "$folder/cd/isolinux/"
cp "$firmware/memtest86+x64.bin" "$folder/cd/isolinux/memtest"
printf 'DEFAULT memtest\nPROMPT 0\nLABEL memtest\n  LINUX memtest\n' >"$folder/cd/isolinux/isolinux.cfg"
xorriso -as mkisofs -quiet -o "$folder/cd.iso" -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot -boot-load-size 4 \
    -boot-info-table "$folder/cd" 2>/dev/null

# ask LINE - has the monitor carry out a line, and waits until it has.
ask() {
    : >"$folder/out"
    printf '%s\n%s\n' "$1" "print 0x5eed5" >&3
    for _ in $(seq 600); do
        # The answer, as the line that is echoed does not begin with it.
        grep -aq '^0x5eed5' "$folder/out" && return
        sleep 0.1
    done
    die "the monitor does not answer to $1"
}

# The text of the screen: 25 lines.
screen() {
    ask "xp /2000hx 0xb8000"
    # Lines and blocks of code page 437 become what a terminal of any kind shows.
    grep -a '^[0-9a-f]*: 0x' "$folder/out" | grep -o ' 0x[0-9a-f]*' | while read -r cell; do printf "\\x${cell:4:2}"; done |
        tr '\0\263\304\301\302\264\303' ' |\-\-\-\-\-' | LC_ALL=C tr -c '[:print:]\n' '#' | fold -w 80 | sed 's/ *$//'
}

# run NAME PROGRAM OPTION... - to the end of the first pass; the screen is left in $folder/NAME, the tests seen in $folder/NAME.tests.
run() {
    local name=$1 start shown pass errors
    shift
    rm -f "$folder/in"
    mkfifo "$folder/in"
    "$@" -m 64 -display none -boot d -cdrom "$folder/cd.iso" -smbios type=1,manufacturer=Mango,product=Plum -monitor stdio \
        <"$folder/in" >>"$folder/out" 2>"$folder/errors" &
    pid=$!
    exec 3>"$folder/in"
    start=$SECONDS
    : >"$folder/$name.tests"
    while :; do
        sleep 2
        kill -0 "$pid" 2>/dev/null || die "$name ended: $(cat "$folder/errors")"
        screen >"$folder/$name"
        shown=$(cat "$folder/$name")
        grep -ao 'Test #[0-9]* *\[.*\]' <<<"$shown" >>"$folder/$name.tests" || true
        # "Pass: N" counts finished passes, "Errors: N" what was found.
        pass=$(grep -ao 'Pass: *[0-9]\+' <<<"$shown" | grep -o '[0-9]\+' || true)
        errors=$(grep -ao 'Errors: *[0-9]\+' <<<"$shown" | grep -o '[0-9]\+' || true)
        [ "${errors:-0}" = 0 ] || die "$name: $errors errors after $((SECONDS - start)) s: $shown"
        [ "${pass:-0}" = 0 ] || break
        [ $((SECONDS - start)) -lt $patience ] || die "$name: no pass in $patience seconds: $shown"
    done
    echo "$name: the first pass ended after $((SECONDS - start)) s without errors"
    cat "$folder/$name"
    echo
    if [ -n "$pictures" ]; then
        mkdir -p "$pictures"
        ask "screendump $folder/screen.ppm"
        convert "$folder/screen.ppm" "$pictures/$name.png"
    fi
    echo quit >&3
    wait "$pid" || die "$name failed: $(cat "$folder/errors")"
    pid=
    sort -u -o "$folder/$name.tests" "$folder/$name.tests"
}

# comparable NAME - what has to be equal of a screen, with "Core #0" or "All Cores" after the kind of the test that is running.
comparable() {
    sed -E \
        -e '1,6s/^(.{28}).*/\1/' \
        -e 's/[0-9]+MHz/MHz/' \
        -e 's/(L[123] Cache:).*/\1/' \
        -e 's/ +[0-9.]+ [GM]B\/s//' \
        -e 's/(Memory  :) +6[34]MB/\1 64MB less tables/' \
        -e 's/Using: (All Cores|Core #0  )/Using:/' \
        -e 's/Time: +[0-9:]+/Time:/' \
        -e 's/(Status: [A-Z][a-z.]+).*/\1/' \
        -e 's/ +$//' "$folder/$1"
}

run emu "$emu"
run emu-seabios "$emu" -bios "$firmware/bios-256k.bin"
run qemu qemu-system-x86_64 -accel tcg
for name in emu emu-seabios; do
    diff <(comparable $name) <(comparable qemu) || die "the screen of $name (<) is not QEMU's (>)"
done
# A test that was seen in several passes has one name, and most were: some are over between two looks.
tests=$(sort -u "$folder/emu.tests" "$folder/emu-seabios.tests" "$folder/qemu.tests")
twice=$(cut -d'[' -f1 <<<"$tests" | uniq -d)
[ -z "$twice" ] || die "tests have different names: $twice"
[ "$(wc -l <<<"$tests")" -ge 6 ] || die "hardly any test was seen: $tests"
printf 'tests seen in these passes:\n%s\nthe screens are the same\n' "$tests"
