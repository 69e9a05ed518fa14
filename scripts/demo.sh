#!/bin/sh
# Builds emu, fetches a Debian kernel and a static busybox, and boots to a shell in this terminal.
#
#   scripts/demo.sh [amd64|i386] [more options of emu]
#
# Ctrl-A X quits, Ctrl-A H helps; "poweroff -f" in the guest ends emu.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
arch=amd64
case ${1-} in
amd64 | i386)
    arch=$1
    shift
    ;;
esac

command -v cargo >/dev/null || {
    echo "demo.sh: cargo is missing: install Rust first, for example from https://rustup.rs" >&2
    exit 1
}
# Sound cards (-audiodev cpal) need ALSA's headers, which is no reason to ask for them here.
features=
! pkg-config --exists alsa 2>/dev/null || features="--features cpal"
# shellcheck disable=SC2086  # two words or none
(cd "$root" && cargo build --release -p emu-frontend $features)
"$root/scripts/guests.sh" "$arch"

guest=${EMU_CACHE:-$root/cache}/$arch
exec "${CARGO_TARGET_DIR:-$root/target}/release/emu" -m 512 -nographic -no-reboot -kernel "$guest/linux" -initrd "$guest/busybox.cpio" \
    -append "console=ttyS0" "$@"
