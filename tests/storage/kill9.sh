#!/bin/sh
# Machines that are killed (SIGKILL) at random moments while their guest writes and flushes: what the guest was told to be durable is there
# afterwards, and the image passes the checks of emu and of qemu-img. Each image is killed under several times, one after the other.
#
#   tests/storage/kill9.sh [KILLS] [FORMAT...]         (needs scripts/guests.sh to have run; EMU names the binary)
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
emu=${EMU:-$root/target/release/emu}
kills=${1:-3}
[ $# -eq 0 ] || shift
formats=${*:-raw qcow2 vmdk vdi vpc vhdx}
folder=$(mktemp -d)
pid=
stop() {
    [ -z "$pid" ] || kill -9 "$pid" 2>/dev/null || true
    rm -rf "$folder"
}
trap stop EXIT INT TERM

# Places of 4 KiB on a disk of 64 MiB, each written once, in an order that jumps about: 16381 is a prime.
places=16381

# A random number below $1.
random() { echo $(( $(od -An -N4 -tu4 /dev/urandom) % $1 )); }

# check IMAGE FORMAT - leaked clusters, which cost room and nothing else, are what a process may leave that is killed.
check() {
    for program in "$emu img" qemu-img; do
        code=0
        # shellcheck disable=SC2086  # a program and its first argument
        $program check -f "$2" "$1" >"$folder/check" 2>&1 || code=$?
        case $code:$(cat "$folder/check") in
        0:* | 3:* | *"does not support checks"*) ;;
        *)
            echo "$program check: status $code"
            cat "$folder/check"
            exit 1
            ;;
        esac
    done
}

# run INTERFACE NODE FORMAT - kills a machine again and again.
run() {
    interface=$1 node=$2 format=$3 image=$folder/image next=1 kill=0
    rm -f "$image"
    "$emu" img create -q -f "$format" "$image" 64M
    while [ $kill -lt "$kills" ]; do
        kill=$((kill + 1))
        log=$folder/log
        : >"$log"
        # shellcheck disable=SC2016  # the guest's variables
        commands='for m in /lib/disk/* /lib/virtio/*; do insmod $m 2>/dev/null; done; until [ -b NODE ]; do sleep 1; done;
            i=FIRST; while true; do yes $i | dd of=NODE bs=4096 count=1 seek=$((i * 4099 % PLACES)) iflag=fullblock conv=fsync,notrunc 2>/dev/null
            && echo ACK $i; i=$((i + 1)); done'
        commands=$(echo "$commands" | tr -s '\n ' ' ' | sed "s|NODE|$node|g; s|FIRST|$next|; s|PLACES|$places|")
        "$emu" -m 96 -display none -monitor none -no-reboot -kernel "$root/cache/amd64/linux" -initrd "$root/cache/amd64/disk.cpio" \
            -append "console=ttyS0 quiet emu_run=\"$commands\"" -serial "file:$log" \
            -drive "file=$image,format=$format,if=$interface" &
        pid=$!
        tries=0
        until grep -q ACK "$log"; do
            tries=$((tries + 1))
            [ $tries -lt 1200 ] || { echo "the guest does not write:"; tail -n 5 "$log"; exit 1; }
            sleep 0.1
        done
        sleep "$(random 2).$(random 10)"
        kill -9 "$pid"
        wait "$pid" 2>/dev/null || true
        pid=
        last=$(tr -d '\r' <"$log" | sed -n 's/^ACK \([0-9]*\)$/\1/p' | tail -n 1)
        check "$image" "$format"
        "$emu" img convert -f "$format" -O raw "$image" "$folder/flat"
        # Everything since the first kill, not only what this guest has written.
        i=1
        while [ $i -le "$last" ]; do
            yes $i | head -c 4096 >"$folder/want"
            dd if="$folder/flat" bs=4096 count=1 skip=$((i * 4099 % places)) 2>/dev/null | cmp -s - "$folder/want" ||
                { echo "write $i of $last is lost"; exit 1; }
            i=$((i + 1))
        done
        # The write that was under way is repeated, which is allowed.
        next=$((last + 1))
    done
    echo "$interface $format: $kills kills, $last acknowledged writes are there"
}

for format in $formats; do
    run virtio /dev/vda "$format"
    run ide /dev/sda "$format"
done
