#!/bin/bash
# iPXE's option ROMs on a user network boot Debian's kernel with a small initrd, by TFTP and by HTTP from the host's loopback, on each card
# that has one, under the built-in BIOS and under SeaBIOS, until the guest says that it is ready and powers off.
# Needs the files of scripts/guests.sh, and python3. Run by hand, after "cargo build --release -p emu-frontend":
#
#   tests/network/ipxe.sh [EMU]
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
emu=${1:-${CARGO_TARGET_DIR:-$root/target}/release/emu}
cache=${EMU_CACHE:-$root/cache}
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$folder"' EXIT

# What iPXE runs: paths are those of the file itself, so that it serves for both ways.
printf '%s\n' '#!ipxe' 'kernel linux console=ttyS0 quiet emu_run=uname initrd=busybox.cpio' 'initrd busybox.cpio' boot >"$folder/boot.ipxe"
cp "$cache/i386/linux" "$cache/i386/busybox.cpio" "$folder/"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
python3 -m http.server -b 127.0.0.1 -d "$folder" "$port" >"$folder/http.log" 2>&1 &
server=$!

for card in ne2k_pci e1000; do
    for bios in "" "-bios $cache/firmware/bios-256k.bin"; do
        for way in "tftp=$folder,bootfile=boot.ipxe" "bootfile=http://10.0.2.2:$port/boot.ipxe"; do
            name="$card, $([ -z "$bios" ] && echo built-in BIOS || echo SeaBIOS), $(grep -q http <<<"$way" && echo HTTP || echo TFTP)"
            begun=$SECONDS
            # shellcheck disable=SC2086  # an option and its value
            timeout 300 "$emu" -m 256 -display none -monitor none -no-reboot -boot n $bios -serial file:"$folder/console" \
                -netdev user,id=n,"$way" -device "$card,netdev=n,romfile=$cache/firmware/pxe-$card.rom" ||
                { tail -n 5 "$folder/console" >&2; echo "ipxe.sh: $name: emu ended with status $?" >&2; exit 1; }
            grep -aq "emu-guest: ready" "$folder/console" && grep -aq "emu-guest: power off" "$folder/console" ||
                { tail -n 5 "$folder/console" >&2; echo "ipxe.sh: $name: no guest" >&2; exit 1; }
            echo "$name: $((SECONDS - begun)) s"
        done
    done
done
