#!/bin/bash
# The graphical Debian installer, started by isolinux from a CD with vga=788, shows its first screen in 800 x 600 pixels, and the same as
# under QEMU (nomodeset keeps the kernel's own driver for the card from setting 1280 x 800): built-in BIOS and VGA BIOS on one side, SeaBIOS and Debian's VGA BIOS on the other, channels equal within 3 of 255.
# Needs the packages debian-installer-12-netboot-amd64, isolinux, syslinux-common, xorriso, qemu-system-x86 and imagemagick. Run by
# hand, after "cargo build --release -p emu-frontend":
#
#   tests/firmware/gtk_installer.sh [EMU]
#
# Two minutes for each machine on a quiet host. The pictures, and one of their difference, are left in the folder that is printed.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
emu=${1:-${CARGO_TARGET_DIR:-$root/target}/release/emu}
installer=/usr/lib/debian-installer/images/12/amd64/gtk/debian-installer/amd64
folder=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill "$pid" 2>/dev/null || true' EXIT
[ -r "$installer/linux" ] || { echo "gtk_installer.sh: install debian-installer-12-netboot-amd64" >&2; exit 1; }

mkdir -p "$folder/cd/isolinux"
cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$installer/linux" "$installer/initrd.gz" "$folder/cd/isolinux/"
cat >"$folder/cd/isolinux/isolinux.cfg" <<CONFIG
DEFAULT linux
PROMPT 0
LABEL linux
  KERNEL linux
  INITRD initrd.gz
  APPEND vga=788 nomodeset --- quiet
CONFIG
xorriso -as mkisofs -quiet -o "$folder/cd.iso" -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot -boot-load-size 4 \
    -boot-info-table "$folder/cd" 2>/dev/null
rm -r "$folder/cd"

# first_screen NAME COMMAND... - starts a machine and saves its screen as NAME.ppm once it is the installer's: 800 x 600, for a good part
# as light as no text screen is, with the buttons at the bottom, and the same for ten seconds.
first_screen() {
    local name=$1 last="" same=0 shown=$folder/$1.ppm start=$SECONDS
    shift
    mkfifo "$folder/$name.in" "$folder/$name.out"
    exec 3<>"$folder/$name.in" 4<>"$folder/$name.out"
    "$@" -m 1024 -boot d -cdrom "$folder/cd.iso" -display none -monitor pipe:"$folder/$name" &
    pid=$!
    while [ $((SECONDS - start)) -lt "${GTK_SECONDS:-900}" ]; do
        kill -0 "$pid" 2>/dev/null || { echo "gtk_installer.sh: $name ended" >&2; exit 1; }
        sleep 4
        echo "screendump $shown" >&3
        sleep 1
        [ -s "$shown" ] || continue
        read -r size light <<<"$(convert "$shown" -colorspace gray -format '%wx%h %[fx:mean>0.5]' info:)"
        buttons=$(convert "$shown" -colorspace gray -gravity south -crop 100%x20%+0+0 -format '%[fx:standard_deviation>0.002]' info:)
        sum=$(md5sum <"$shown")
        [ "$sum" = "$last" ] && [ "$size $light $buttons" = "800x600 1 1" ] && same=$((same + 1)) || same=0
        last=$sum
        if [ $same -ge 2 ]; then
            echo quit >&3
            wait "$pid" || { echo "gtk_installer.sh: $name failed" >&2; exit 1; }
            pid=
            convert "$shown" "${shown%.ppm}.png"
            echo "$name: first screen after $((SECONDS - start)) s: ${shown%.ppm}.png"
            return
        fi
    done
    echo "gtk_installer.sh: $name: no first screen, but this: $shown" >&2
    exit 1
}

first_screen emu "$emu"
first_screen qemu qemu-system-x86_64 -accel tcg -vga std -nic none
(cd "$root" && cargo run -q -p emu-tests --bin compare-pictures -- "$folder/emu.ppm" "$folder/qemu.ppm" --diff "$folder/difference.ppm")
