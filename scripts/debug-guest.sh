#!/bin/sh
# Tools for the question "where does this guest go wrong under emu?", with QEMU as the machine to compare with.
#
#   scripts/debug-guest.sh symbols ARCH          makes a System.map of the cached kernel, by asking it in QEMU
#   scripts/debug-guest.sh where ARCH ADDRESS... names kernel addresses; boot with "nokaslr", so that they are those of the map
#   scripts/debug-guest.sh int ARCH [OPTION...]  boots the guest in QEMU with a log of exceptions, interrupts and resets
#   scripts/debug-guest.sh exec ARCH [OPTION...] ... with a log of each instruction executed, and the symbols of kernel code
#   scripts/debug-guest.sh gdb ARCH [OPTION...]  boots it in QEMU, stopped, with its gdb stub at port 1234:
#                                                gdb -ex "target remote :1234" -ex "hbreak *0x1000000" -ex c
#
# emu takes the same -d and -D, so that both logs can be laid side by side:
#
#   emu -m 512 -nographic -no-reboot -kernel cache/amd64/linux -initrd cache/amd64/busybox.cpio \
#       -append "console=ttyS0 nokaslr earlyprintk=serial" -d int,cpu_reset,guest_errors -D emu.log
#
# Three hints. "earlyprintk=serial" shows what the kernel says before its console driver runs; "nokaslr" keeps addresses equal
# between runs; "initcall_debug" shows which initialisation does not come back. Logs go to cache/debug.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
cache=${EMU_CACHE:-$root/cache}

die() {
    echo "debug-guest.sh: $*" >&2
    exit 1
}

[ $# -ge 2 ] || die "usage: debug-guest.sh symbols|where|int|exec|gdb amd64|i386 [...] (see the head of the script)"
action=$1 arch=$2
shift 2
case $arch in amd64 | i386) ;; *) die "unknown architecture '$arch': amd64 and i386 exist" ;; esac
map=$cache/$arch/System.map
log=$cache/debug
mkdir -p "$log"

# Debian's kernel packages do not hold a System.map, but the running kernel tells.
fetch_symbols() {
    [ -s "$map" ] && return
    timeout 120 qemu-system-x86_64 -accel tcg -cpu max -nic none -m 512 -nographic -no-reboot -kernel "$cache/$arch/linux" \
        -initrd "$cache/$arch/busybox.cpio" -append "console=ttyS0 quiet nokaslr emu_run=\"cat /proc/kallsyms\"" </dev/null |
        tr -d '\r' | grep -E '^[0-9a-f]+ [a-zA-Z] [^[:space:]]+$' | sort >"$map.part"
    [ "$(wc -l <"$map.part")" -gt 10000 ] || die "the guest did not tell its symbols"
    mv "$map.part" "$map"
}

# where ADDRESS... - the last symbol at or below each address.
where() {
    for address in "$@"; do
        wanted=$(printf '%s' "$address" | sed 's/^0[xX]//' | tr '[:upper:]' '[:lower:]')
        # Equal numbers of digits sort as text.
        digits=$(head -n 1 "$map" | cut -d ' ' -f 1 | wc -c)
        wanted=$(printf '%s' "$wanted" | awk -v n=$((digits - 1)) '{ while (length($0) < n) $0 = "0" $0; print }')
        awk -v w="$wanted" -v a="$address" '
            "x" $1 > "x" w { exit }
            { at = $1; name = $3 }
            END { print a, (name == "" ? "?" : name " (symbol at " at ")") }' "$map"
    done
}

boot() {
    exec qemu-system-x86_64 -accel tcg -cpu max -nic none -m 512 -nographic -no-reboot -kernel "$cache/$arch/linux" \
        -initrd "$cache/$arch/busybox.cpio" -append "console=ttyS0 nokaslr earlyprintk=serial" "$@"
}

case $action in
symbols) fetch_symbols && echo "$map" ;;
where) fetch_symbols && where "$@" ;;
int) boot -d int,cpu_reset,guest_errors,unimp -D "$log/qemu-int-$arch.log" "$@" ;;
exec) boot -singlestep -d exec,nochain,int -D "$log/qemu-exec-$arch.log" "$@" ;;
gdb) boot -S -s "$@" ;;
*) die "unknown action '$action'" ;;
esac
