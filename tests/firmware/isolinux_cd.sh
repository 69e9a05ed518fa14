#!/bin/bash
# A CD made with isolinux, Debian's kernel and a busybox initramfs boots to user space and powers off, amd64 and i386, under the
# built-in BIOS and under SeaBIOS. Needs the packages isolinux, syslinux-common, xorriso and seabios, and the guests of
# scripts/guests.sh. Run by hand, after "cargo build --release -p emu-frontend":
#
#   tests/firmware/isolinux_cd.sh [EMU]
#
# Half a minute for each of the four boots; three at most.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
emu=${1:-${CARGO_TARGET_DIR:-$root/target}/release/emu}
cache=${EMU_CACHE:-$root/cache}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

for arch in amd64 i386; do
    mkdir -p "$folder/cd/isolinux"
    cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$cache/$arch/linux" "$cache/$arch/busybox.cpio" \
        "$folder/cd/isolinux/"
    cat >"$folder/cd/isolinux/isolinux.cfg" <<CONFIG
DEFAULT linux
PROMPT 0
LABEL linux
  KERNEL linux
  INITRD busybox.cpio
  APPEND console=ttyS0 quiet emu_run="uname -m; dmesg | grep -c 'ACPI: PM-Timer'; dmesg | grep -e 'ACPI.*[Ee]rror' -e BUG: || echo no complaints"
CONFIG
    xorriso -as mkisofs -quiet -o "$folder/cd.iso" -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot -boot-load-size 4 \
        -boot-info-table "$folder/cd" 2>/dev/null
    for bios in "" "-bios bios-256k.bin"; do
        # shellcheck disable=SC2086  # an option and its value
        timeout 180 "$emu" $bios -m 512 -display none -no-reboot -boot d -cdrom "$folder/cd.iso" -serial "file:$folder/serial"
        for text in "emu-guest: ready" "no complaints" "reboot: Power down"; do
            grep -q "$text" "$folder/serial" || { echo "isolinux_cd.sh: $arch $bios: no '$text':" >&2; cat "$folder/serial" >&2; exit 1; }
        done
        echo "$arch ${bios:-built-in BIOS}: booted from CD and powered off"
    done
done
