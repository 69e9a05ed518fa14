#!/bin/sh
# What a disk's bytes may be besides a file, and what may happen to that, each with a guest that uses it: an NBD server that is killed and
# started again, LUKS, a full host file system, the monitor's commit and block_set_io_throttle, block devices, O_DIRECT; and the errors that are
# told in one line.
#
#   tests/storage/back_ends.sh            (as root, for mounts and loop devices; needs qemu-utils, scripts/guests.sh to have run; EMU
#                                         names the binary)
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
emu=${EMU:-$root/target/release/emu}
folder=$(mktemp -d)
machine= server= loop=
stop() {
    for process in $machine $server; do kill -9 "$process" 2>/dev/null || true; done
    [ -z "$loop" ] || losetup -d "$loop"
    ! mountpoint -q "$folder/small" || umount "$folder/small"
    rm -rf "$folder"
}
trap stop EXIT INT TERM

fail() {
    echo "FAILED: $1"
    tail -n 5 "$folder/log" "$folder/monitor" "$folder/errors" 2>/dev/null || true
    exit 1
}

# wait_for FILE TEXT - up to two minutes.
wait_for() {
    tries=0
    until grep -q -- "$2" "$1"; do
        tries=$((tries + 1))
        [ $tries -lt 1200 ] || fail "$2 does not come in $1"
        sleep 0.1
    done
}

# start COMMANDS OPTION... - a guest that runs COMMANDS on its disk, /dev/vda. Its monitor takes what is written to descriptor 3.
start() {
    commands=$1
    shift
    rm -f "$folder/in"
    mkfifo "$folder/in"
    : >"$folder/log"
    "$emu" -m 96 -display none -no-reboot -kernel "$root/cache/amd64/linux" -initrd "$root/cache/amd64/disk.cpio" \
        -append "console=ttyS0 quiet emu_run=\"for m in /lib/virtio/*; do insmod \$m 2>/dev/null; done; $commands\"" \
        -serial "file:$folder/log" -monitor stdio "$@" <"$folder/in" >"$folder/monitor" 2>"$folder/errors" &
    machine=$!
    exec 3>"$folder/in"
}

# finish - the guest has powered off.
finish() {
    wait $machine || fail "the machine's status is $?"
    machine=
    exec 3>&-
}

# refused TEXT OPTION... - a machine that does not start says why in one line.
refused() {
    text=$1
    shift
    code=0
    "$emu" -display none "$@" >"$folder/refusal" 2>&1 || code=$?
    [ $code -eq 1 ] || fail "status $code instead of 1 for $*"
    [ "$(wc -l <"$folder/refusal")" -eq 1 ] || fail "more than a line for $*: $(cat "$folder/refusal")"
    grep -q -- "$text" "$folder/refusal" || fail "no '$text' in $(cat "$folder/refusal")"
    echo "refused: $(cat "$folder/refusal")"
}

head -c 1048576 /dev/urandom >"$folder/noise"
sum=$(sha256sum "$folder/noise" | cut -d' ' -f1)
# Reads a MiB, writes it again one further.
copy='echo READ $(dd if=/dev/vda bs=64k count=16 | sha256sum | cut -c1-64);
    dd if=/dev/vda of=/dev/vda bs=64k count=16 seek=16 conv=fsync,notrunc && echo WRITTEN'
copy=$(echo "$copy" | tr -s '\n ' ' ')

# image NAME - 32 MiB that begin with the noise.
image() {
    cp "$folder/noise" "$folder/$1"
    truncate -s 32M "$folder/$1"
}

# copied FILE - the guest has read what was there, and its copy is behind.
copied() {
    wait_for "$folder/log" WRITTEN
    grep -q "READ $sum" "$folder/log" || fail "the guest has read something else"
    cmp -n 1048576 "$1" "$folder/noise" && cmp -n 1048576 -i 1048576:0 "$1" "$folder/noise" || fail "$1 is not what the guest has written"
}

# NBD over TCP.
port=$((20000 + $$ % 20000))
serve() {
    qemu-nbd -t -b 127.0.0.1 -p $port -f raw -x disk "$folder/nbd" &
    server=$!
}
refused "disk" -drive "file=nbd://127.0.0.1:$port/disk,format=raw"
image nbd
serve
sleep 1
start "$copy; i=1; while [ \$i -le 200 ]; do yes \$i | dd of=/dev/vda bs=4096 count=1 seek=\$((1024 + i)) iflag=fullblock conv=fsync,notrunc 2>/dev/null && echo ACK \$i;
    i=\$((i + 1)); done; echo ENOUGH" -drive "file=nbd://127.0.0.1:$port/disk,format=raw,reconnect-delay=60,if=virtio"
copied "$folder/nbd"
wait_for "$folder/log" "ACK 20"
kill -9 $server
wait $server 2>/dev/null || true
sleep 3
! grep -q ENOUGH "$folder/log" || fail "the server was killed too late"
serve
wait_for "$folder/log" ENOUGH
finish
i=1
while [ $i -le 200 ]; do
    grep -q "ACK $i.\$" "$folder/log" || fail "write $i was not acknowledged"
    yes $i | head -c 4096 >"$folder/want"
    cmp -s -n 4096 -i $(((1024 + i) * 4096)):0 "$folder/nbd" "$folder/want" || fail "write $i is lost"
    i=$((i + 1))
done
kill $server
wait $server 2>/dev/null || true
server=
echo "NBD over TCP: read and written; 200 writes across the death of the server are there"

# LUKS.
secret=secret,id=s,data=right
qemu-img create -q --object $secret -f luks -o key-secret=s,iter-time=10 "$folder/luks" 32M
qemu-img convert --object $secret -n -f raw --target-image-opts "$folder/noise" "driver=luks,key-secret=s,file.filename=$folder/luks"
start "$copy" -object $secret -drive "file=$folder/luks,format=luks,key-secret=s,if=virtio"
wait_for "$folder/log" WRITTEN
finish
qemu-img convert --object $secret --image-opts "driver=luks,key-secret=s,file.filename=$folder/luks" -O raw "$folder/plain"
copied "$folder/plain"
refused "luks" -object secret,id=s,data=wrong -drive "file=$folder/luks,format=luks,key-secret=s"
echo "LUKS: read and written with the right key, refused with the wrong one"

# A host file system without room.
mkdir "$folder/small"
mount -t tmpfs -o size=4M none "$folder/small"
truncate -s 32M "$folder/small/disk"
start "dd if=/dev/urandom of=/tmp/x bs=1M count=8; dd if=/tmp/x of=/dev/vda bs=64k conv=fsync && echo WRITTEN \$(sha256sum </tmp/x)" \
    -drive "file=$folder/small/disk,format=raw,werror=stop,if=virtio"
tries=0
until grep -q "io-error" "$folder/monitor"; do
    tries=$((tries + 1))
    [ $tries -lt 600 ] || fail "the machine does not stop for want of room"
    echo "info status" >&3
    sleep 0.2
done
! grep -q WRITTEN "$folder/log" || fail "the guest has written more than there is room for"
mount -o remount,size=64M "$folder/small"
echo cont >&3
wait_for "$folder/log" WRITTEN
finish
written=$(head -c 8388608 "$folder/small/disk" | sha256sum | cut -d' ' -f1)
grep -q "WRITTEN $written" "$folder/log" || fail "what is in the image is not what the guest has written"
umount "$folder/small"
echo "werror=stop: stopped on a full file system, went on with cont, and nothing is lost"

# The monitor: commit, and limits.
image base
cp "$folder/base" "$folder/before"
start "$copy; sleep 5; dd if=/dev/vda of=/dev/null bs=64k skip=64 count=64 iflag=direct; echo SLOW; sleep 100000" \
    -drive "file=$folder/base,format=raw,snapshot=on,id=disk,if=virtio"
wait_for "$folder/log" WRITTEN
cmp -s "$folder/base" "$folder/before" || fail "snapshot=on has written to the file"
echo "block_set_io_throttle disk 1048576 0 0 0 0 0" >&3
echo "commit disk" >&3
sleep 1
copied "$folder/base"
begin=$(date +%s)
wait_for "$folder/log" SLOW
[ $(($(date +%s) - begin)) -ge 3 ] || fail "4 MiB at 1 MiB/s came in less than 3 s"
echo quit >&3
finish
echo "the monitor: commit writes to the file below, block_set_io_throttle slows a guest down"

# A block device, without the host's cache.
image device
loop=$(losetup -f --show "$folder/device")
for file in "$loop" "$folder/device.file"; do
    cp "$folder/noise" "$folder/device.file"
    truncate -s 32M "$folder/device.file"
    start "$copy; sleep 100000" -drive "file=$file,format=raw,cache=none,if=virtio"
    wait_for "$folder/log" WRITTEN
    number=
    for link in /proc/$machine/fd/*; do
        [ "$(readlink "$link")" != "$file" ] || number=${link##*/}
    done
    flags=$(sed -n 's/^flags:[[:space:]]*//p' "/proc/$machine/fdinfo/$number")
    [ $((0$flags & 040000)) -ne 0 ] || fail "$file is open without O_DIRECT: flags $flags"
    copied "$file"
    refused "in use" -drive "file=$file,format=raw"
    echo quit >&3
    finish
    echo "cache=none: $file is open with O_DIRECT (flags $flags), read and written"
done
losetup -d "$loop"
loop=

# What cannot be opened.
"$emu" img create -q -f qcow2 -b base -F raw "$folder/overlay"
rm "$folder/base"
refused "base" -drive "file=$folder/overlay,format=qcow2"
echo "all back ends are well"
