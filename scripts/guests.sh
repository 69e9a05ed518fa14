#!/bin/sh
# Fetches the guests that the tests, the demonstration and the benchmark boot, into cache/ (ignored by git):
#
#   cache/ARCH/linux          Debian 12's installer kernel (package debian-installer-12-netboot-ARCH, directory "text")
#   cache/ARCH/initrd.gz      the installer itself
#   cache/ARCH/busybox        a static busybox (package busybox-static)
#   cache/ARCH/busybox.cpio   an initramfs made of it by tests/src/bin/mkinitramfs.rs
#   cache/ARCH/disk.cpio      the same with the kernel's drivers for IDE, ext4 and ISO 9660 under /lib/disk, and those for virtio
#                             under /lib/virtio, in the order in which they load (package linux-image of the installer kernel's
#                             version)
#   cache/ARCH/net.cpio       the same as busybox.cpio with drivers of network cards under /lib/net and a script for udhcpc
#   cache/firmware/           SeaBIOS, Bochs' BIOS, GRUB's rescue images, isolinux, memtest86+ and iPXE's option ROMs (packages
#                             seabios, bochsbios, grub-rescue-pc, isolinux, syslinux-common, memtest86+ and ipxe-qemu)
#
# Usage: scripts/guests.sh [amd64] [i386] [firmware]          (default: all)
# Environment: EMU_CACHE, another folder instead of cache/.
#
# Nothing is installed and nothing of the system is changed, so no root is needed: an installed package is copied, otherwise
# packages are downloaded and unpacked here. i386 packages come through package lists of our own under cache/apt, so that
# "dpkg --add-architecture" is not needed. A partly failed "apt-get update" is no reason to stop: mirrors are sometimes
# half-synchronised, and only the packages that we need have to be there.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
cache=${EMU_CACHE:-$root/cache}
apt=$cache/apt

say() { echo "guests.sh: $*" >&2; }

# apt-get with package lists of our own, for both architectures.
private_apt() {
    mkdir -p "$apt/lists/partial" "$apt/archives/partial"
    apt-get -q -o Dir::State::lists="$apt/lists" -o Dir::Cache="$apt" -o APT::Architectures::=amd64 -o APT::Architectures::=i386 \
        -o APT::Sandbox::User="$(id -un)" -o Acquire::Retries=2 "$@"
}

# For systems whose own sources do not have Debian 12: the same, from Debian 12 alone.
debian_12_apt() {
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -r "$keyring" ] || return 1
    mkdir -p "$apt"
    echo "deb [signed-by=$keyring] http://deb.debian.org/debian bookworm main" >"$apt/debian-12.list"
    private_apt -o Dir::Etc::SourceList="$apt/debian-12.list" -o Dir::Etc::SourceParts=/dev/null "$@"
}

# download PACKAGE:ARCHITECTURE - leaves the package in $apt/deb.
download() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    rm -rf "$apt/deb" && mkdir -p "$apt/deb" && cd "$apt/deb"
    say "downloading $1"
    log=$apt/log
    : >"$log"
    for get in "apt-get -q" private_apt debian_12_apt; do
        if [ "$get" != "apt-get -q" ] && [ ! -e "$apt/updated-$get" ]; then
            $get update >>"$log" 2>&1 || say "some package lists could not be fetched (see $log); going on with the others"
            : >"$apt/updated-$get"
        fi
        # An _apt user that cannot write here is only a warning.
        if $get download "$1" >>"$log" 2>&1 && ls ./*.deb >/dev/null 2>&1; then return 0; fi
    done
    return 1
}

# unpack FILE DESTINATION - takes one file out of the package just downloaded.
unpack() {
    dpkg-deb --fsys-tarfile "$apt"/deb/*.deb | tar -x -O -f - "$1" >"$2.part" && mv "$2.part" "$2"
}

fail() {
    say "cannot get $1: pass such files by hand, as in: emu -m 512 -nographic -kernel LINUX -initrd INITRD -append console=ttyS0" \
        "(or put them at $2)"
    exit 1
}

fetch_installer() {
    arch=$1 to=$cache/$1 from=usr/lib/debian-installer/images/12/$1/text/debian-installer/$1
    [ -s "$to/linux" ] && [ -s "$to/initrd.gz" ] && return
    if [ -s "/$from/linux" ] && [ -s "/$from/initrd.gz" ]; then
        cp "/$from/linux" "/$from/initrd.gz" "$to/"
        return
    fi
    package=debian-installer-12-netboot-$arch
    download "$package" && unpack "./$from/linux" "$to/linux" && unpack "./$from/initrd.gz" "$to/initrd.gz" ||
        fail "the package $package" "$to/linux and $to/initrd.gz"
}

fetch_busybox() {
    arch=$1 to=$cache/$1
    [ -s "$to/busybox" ] && return
    if [ "$(dpkg-query -W -f '${Architecture} ${Status}' busybox-static 2>/dev/null)" = "$arch install ok installed" ]; then
        cp /bin/busybox "$to/busybox"
        return
    fi
    download "busybox-static:$arch" && { unpack ./bin/busybox "$to/busybox" || unpack ./usr/bin/busybox "$to/busybox"; } 2>>"$apt/log" ||
        fail "the package busybox-static:$arch" "$to/busybox"
    chmod 755 "$to/busybox"
}

make_initramfs() {
    to=$cache/$1
    new=$root/tests/boot/init.sh
    if [ -s "$to/busybox.cpio" ] && [ -z "$(find "$new" "$root/tests/src/initramfs.rs" "$to/busybox" -newer "$to/busybox.cpio")" ]; then
        return
    fi
    (cd "$root" && cargo run -q --release -p emu-tests --bin mkinitramfs -- --busybox "$to/busybox" --out "$to/busybox.cpio.part")
    mv "$to/busybox.cpio.part" "$to/busybox.cpio"
}

# What a disk and a CD-ROM need, each after what it needs itself. Not every kernel has all of them as modules.
disk_modules="scsi_common scsi_mod libata ata_piix crct10dif_common crct10dif_generic crc-t10dif crc64 crc64_rocksoft_generic
    crc64-rocksoft t10-pi sd_mod cdrom sr_mod isofs crc16 mbcache jbd2 crc32c_generic libcrc32c ext4"

virtio_modules="virtio virtio_ring virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk failover net_failover virtio_net
    rng-core virtio-rng virtio_console virtio_balloon"

# copy_modules FOLDER MODULE... - numbered, out of the unpacked package.
copy_modules() {
    folder=$tree/root/lib/$1 number=10
    shift
    mkdir -p "$folder"
    for module in "$@"; do
        find "$tree/all" -name "$module.ko" -exec cp {} "$folder/$number-$module.ko" \;
        number=$((number + 1))
    done
}

make_disk_initramfs() {
    arch=$1 to=$cache/$1
    if [ -s "$to/disk.cpio" ] && [ "$to/disk.cpio" -nt "$to/busybox.cpio" ] && [ "$to/disk.cpio" -nt "$root/scripts/guests.sh" ]; then return; fi
    version=$(gzip -dc "$to/initrd.gz" | "$to/busybox" cpio -t 2>/dev/null | sed -n 's|^lib/modules/\([^/]*\)/kernel$|\1|p')
    download "linux-image-$version:$arch" || fail "the package linux-image-$version:$arch" "$to/disk.cpio"
    tree=$apt/tree
    rm -rf "$tree" && mkdir -p "$tree/all" "$tree/root"
    dpkg-deb -x "$apt"/deb/*.deb "$tree/all"
    copy_modules disk $disk_modules
    copy_modules virtio $virtio_modules
    (cd "$tree/root" && find lib | "$to/busybox" cpio -o -H newc 2>/dev/null) | cat "$to/busybox.cpio" - >"$to/disk.cpio.part"
    mv "$to/disk.cpio.part" "$to/disk.cpio"
}

# What network cards need, each after what it needs itself.
net_modules="8390 8390p ne ne2k-pci e1000 failover net_failover virtio virtio_ring virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_net"

make_net_initramfs() {
    arch=$1 to=$cache/$1
    script=$root/tests/boot/udhcpc.sh
    if [ -s "$to/net.cpio" ] && [ -z "$(find "$to/busybox.cpio" "$script" "$root/scripts/guests.sh" -newer "$to/net.cpio")" ]; then return; fi
    tree=$apt/net
    rm -rf "$tree" && mkdir -p "$tree/all" "$tree/root/lib/net" "$tree/root/etc/udhcpc"
    gzip -dc "$to/initrd.gz" | (cd "$tree/all" && "$to/busybox" cpio -i -d 'lib/modules/*/kernel/net/*' 'lib/modules/*/kernel/drivers/*' 2>/dev/null) || true
    number=10
    for module in $net_modules; do
        find "$tree/all" -name "$module.ko" -exec cp {} "$tree/root/lib/net/$number-$module.ko" \;
        number=$((number + 1))
    done
    cp "$script" "$tree/root/etc/udhcpc/default.script"
    chmod 755 "$tree/root/etc/udhcpc/default.script"
    (cd "$tree/root" && find lib etc | "$to/busybox" cpio -o -H newc 2>/dev/null) | cat "$to/busybox.cpio" - >"$to/net.cpio.part"
    mv "$to/net.cpio.part" "$to/net.cpio"
}

# fetch_files PACKAGE PATH... - files of a package for every architecture, into cache/firmware.
fetch_files() {
    package=$1 to=$cache/firmware unpacked=
    shift
    for path in "$@"; do
        file=$to/${path##*/}
        [ -s "$file" ] && continue
        if [ -s "/$path" ]; then
            cp "/$path" "$file"
            continue
        fi
        [ -n "$unpacked" ] || download "$package" || fail "the package $package" "$file"
        unpacked=yes
        unpack "./$path" "$file" || fail "/$path of the package $package" "$file"
    done
}

fetch_firmware() {
    mkdir -p "$cache/firmware"
    fetch_files seabios usr/share/seabios/bios-256k.bin
    fetch_files bochsbios usr/share/bochs/BIOS-bochs-latest usr/share/bochs/BIOS-bochs-legacy
    fetch_files grub-rescue-pc usr/lib/grub-rescue/grub-rescue-cdrom.iso usr/lib/grub-rescue/grub-rescue-floppy.img
    fetch_files isolinux usr/lib/ISOLINUX/isolinux.bin
    fetch_files syslinux-common usr/lib/syslinux/modules/bios/ldlinux.c32
    fetch_files memtest86+ boot/memtest86+x64.bin
    fetch_files ipxe-qemu usr/lib/ipxe/qemu/pxe-ne2k_pci.rom usr/lib/ipxe/qemu/pxe-e1000.rom
}

[ $# -gt 0 ] || set -- amd64 i386 firmware
for arch in "$@"; do
    case $arch in
    amd64 | i386) ;;
    firmware)
        fetch_firmware
        continue
        ;;
    *)
        say "unknown guest '$arch': amd64, i386 and firmware exist"
        exit 1
        ;;
    esac
    mkdir -p "$cache/$arch"
    fetch_installer "$arch"
    fetch_busybox "$arch"
    make_initramfs "$arch"
    make_disk_initramfs "$arch"
    make_net_initramfs "$arch"
done
rm -rf "$apt"
