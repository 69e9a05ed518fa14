#!/bin/bash
# Debian on a disk: an ext4 root made by debootstrap behind GRUB in the MBR boots from IDE, or virtio, to a login prompt on serial and on VGA, takes
# a login, runs commands and powers off, under the built-in BIOS and under SeaBIOS. Then the power fails CYCLES times in the middle of
# writes (kill -9). After each the journal of a copy is replayed by the host and the file system has to be clean, and every record
# that the guest reported after its fsync has to be in the file; the next boot replays the journal of the disk itself.
# Needs root, and the packages debootstrap, e2fsprogs, fdisk, grub-pc-bin, grub-common, seabios and imagemagick. Run by hand, after
# "cargo build --release -p emu-frontend":
#
#   tests/firmware/debian_disk.sh [ARCH] [CYCLES] [EMU] [INTERFACE]          (default: amd64 20, and ide; or virtio)
#
# The image is kept in cache/ARCH/debian.img (three minutes once); the pictures of the screen are left in the folder that is printed.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
arch=${1:-amd64}
cycles=${2:-20}
emu=${3:-${CARGO_TARGET_DIR:-$root/target}/release/emu}
interface=${4:-ide}
image=${EMU_CACHE:-$root/cache}/$arch/debian.img
folder=$(mktemp -d)
# Seconds for any step, on a busy host too.
patience=1800
. "$root/tests/debian.sh"

make_image() {
    local tree=$folder/root
    make_tree "$tree" systemd-sysv,udev,e2fsprogs,procps

    # Process 1 of the boots that end in a power failure: records with a growing number go to a file, and a number is printed only
    # once fsync has come back; another process makes, renames and removes files all the time.
    cat >"$tree/sbin/records" <<'SCRIPT'
#!/usr/bin/perl
use IO::Handle;
$| = 1;
system("mount -t proc proc /proc; mount -o remount,rw /") == 0 or die "cannot remount the root";
mkdir "/records";
if (fork == 0) {
    for (my $i = 0;; $i++) {
        my $name = "/records/noise" . $i % 40;
        open(my $file, ">", "$name.new") or die "$name: $!";
        print $file chr(65 + $i % 26) x (1000 + $i * 7919 % 300000);
        close $file;
        rename "$name.new", $name;
        unlink "/records/noise" . ($i + 20) % 40;
    }
}
my $last = 0;
if (open(my $old, "<", "/records/log")) {
    while (<$old>) { /^record (\d+) .*end$/ and $last = $1; }
}
print "records from ", $last + 1, "\n";
open(my $log, ">>", "/records/log") or die "log: $!";
for (my $number = $last + 1;; $number++) {
    print $log "record $number ", "x" x ($number * 31 % 700), " end\n";
    $log->flush;
    $log->sync or die "fsync: $!";
    print "synced $number.\n";
}
SCRIPT
    chmod 755 "$tree/sbin/records"

    make_disk "$tree" "$image" Debian=systemd.show_status=0 Records=init=/sbin/records
}

# start OPTION... - a machine with a copy of the disk; commands for its monitor go to file 4.
start() {
    rm -f "$folder"/monitor.*
    mkfifo "$folder/monitor.in" "$folder/monitor.out"
    exec 4<>"$folder/monitor.in" 5<>"$folder/monitor.out"
    # The guest's time is what it has executed, so that no host is too busy for its timeouts.
    launch "$emu" "$@" -icount shift=1 -m 512 -display none -no-reboot -drive file="$folder/disk.img",format=raw,if="$interface",index=0 \
        -monitor pipe:"$folder/monitor" -serial stdio
}

# power_off - ends the session that is logged in.
power_off() {
    type_line "systemctl poweroff"
    finish "$patience"
}

log_in() {
    expect "debian login: " "$patience"
    echo "$arch $1: login prompt after $((SECONDS - started)) s"
    type_line root
    expect "Password: " "$patience"
    type_line emu
    expect "root@debian:~#" "$patience"
}

# partition IMAGE - copies the file system out of a disk.
partition() {
    rm -f "$folder/partition"
    dd if="$1" of="$folder/partition" bs=1M skip=$((first_sector / 2048)) conv=sparse status=none
    truncate -s $((sectors * 512)) "$folder/partition"
}

# go_on WHEN - the machine that has been started goes on behind the acknowledged records: there may be one more.
go_on() {
    expect "records from" "$patience"
    first=$(grep -ao 'records from [0-9]*' "$folder/console" | grep -o '[0-9]*')
    [ "$first" -gt "$acknowledged" ] || die "$1: record $acknowledged was acknowledged, the next boot goes on from $first"
}

[ -s "$image" ] || make_image
cp --sparse=always "$image" "$folder/disk.img"

for bios in "" "-bios bios-256k.bin"; do
    name=${bios:-built-in BIOS}
    # shellcheck disable=SC2086  # an option and its value
    start $bios
    log_in "$name"
    # The screen's console is another getty, a moment later perhaps.
    sleep 3
    picture=$folder/login-$(tr -dc a-z <<<"$name").png
    echo "screendump $folder/screen.ppm" >&4
    sleep 2
    convert "$folder/screen.ppm" "$picture"
    type_line "echo sum \$((6 * 7)); uname -m; grep -c . /proc/partitions; dd if=/dev/urandom of=/root/file bs=1M count=8 conv=fsync"
    expect "sum 42" "$patience"
    type_line "sync; echo 3 >/proc/sys/vm/drop_caches; md5sum /root/file >/root/sum; echo 3 >/proc/sys/vm/drop_caches; md5sum -c /root/sum"
    expect "/root/file: OK" "$patience"
    # The SMBus controller and the first of its EEPROMs, which Linux's at24 driver writes and reads.
    type_line "dmesg | grep -c 'SMBus Host Controller at 0x700, revision 0' | sed 's/^/controllers: /'"
    expect "controllers: 1" "$patience"
    type_line "modprobe at24; echo 24c02 0x50 >/sys/bus/i2c/devices/i2c-0/new_device; cd /sys/bus/i2c/devices/0-0050; \
printf man''go | dd of=eeprom bs=1 seek=16; dd if=eeprom bs=1 skip=16 count=5; cd"
    expect "mango" "$patience"
    type_line "dmesg | grep -E 'ata.*(exception|failed|reset)|EXT4-fs error|BUG' || echo no comp''laints"
    expect "no complaints" "$patience"
    [ -n "$bios" ] || type_line "rm /root/file"
    [ -z "$bios" ] || type_line "sed -i s/default=0/default=1/ /boot/grub/grub.cfg; sync; echo set re''cords"
    [ -z "$bios" ] || expect "set records" "$patience"
    power_off
    partition "$folder/disk.img"
    e2fsck -fn "$folder/partition" >"$folder/fsck" 2>&1 || die "not clean after power off: $(cat "$folder/fsck")"
    echo "$arch $name: logged in, ran commands, powered off; screen: $picture"
done

acknowledged=0
for cycle in $(seq "$cycles"); do
    start
    go_on "cycle $cycle"
    expect "synced $((first + 3))." "$patience"
    sleep $((RANDOM % 4)).$((RANDOM % 10))
    kill -9 "$pid"
    wait "$pid" 2>/dev/null || true
    pid=
    acknowledged=$(grep -ao 'synced [0-9]*\.' "$folder/console" | tail -n 1 | tr -dc 0-9)
    partition "$folder/disk.img"
    e2fsck -p -E journal_only "$folder/partition" >"$folder/fsck" 2>&1 || die "cycle $cycle: no journal replay: $(cat "$folder/fsck")"
    # The kernel keeps the superblock's free counts only when it unmounts, and sets them right when it mounts.
    e2fsck -fn "$folder/partition" >"$folder/fsck" 2>&1 || true
    grep -vE '^Free (blocks|inodes) count wrong \([0-9]+, counted=[0-9]+\)\.$' "$folder/fsck" >"$folder/found" || true
    [ "$(grep -c '? no' "$folder/fsck" || true)" = "$(($(wc -l <"$folder/fsck") - $(wc -l <"$folder/found")))" ] && grep -q "^Pass 5" "$folder/found" ||
        die "cycle $cycle: not clean: $(cat "$folder/fsck")"
    debugfs -R "cat /records/log" "$folder/partition" 2>/dev/null >"$folder/log"
    # Each acknowledged record is there, whole, once and in order; a later one may be there or be cut.
    head -n "$acknowledged" "$folder/log" | awk '
        $1 != "record" || $2 != NR || $NF != "end" || length($0) != length($1 $2) + $2 * 31 % 700 + 6 { exit 1 }
        END { if (NR != count) exit 1 }' count="$acknowledged" || die "cycle $cycle: not all of $acknowledged acknowledged records are on the disk"
    echo "$arch cycle $cycle: $((SECONDS - started)) s, $acknowledged records acknowledged and kept, file system clean"
done

# After so many failures the disk still boots, under SeaBIOS too.
start -bios bios-256k.bin
go_on "after all cycles"
echo "$arch: $cycles power failures survived"
kill -9 "$pid"
