#!/bin/sh
# Thirty guests from one template, each with a qcow2 image of its own on top of it, all at once: how long each takes to its shell,
# and what memory they take together.
#
#   tests/storage/thirty_guests.sh [NUMBER]            (needs scripts/guests.sh to have run; EMU names the binary)
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
emu=${EMU:-$root/target/release/emu}
number=${1:-30}
folder=$(mktemp -d)
pids=
done=
stop() {
    # shellcheck disable=SC2086  # a list of numbers
    [ -z "$pids" ] || kill $pids 2>/dev/null || true
    [ -z "$done" ] || rm -rf "$folder"
}
trap stop EXIT INT TERM

# fail GUEST WHAT - shows the end of what the guest has said; everything stays for a closer look.
fail() {
    echo "guest $1 $2; its console ($folder/$1.log) ends so:"
    tail -n 5 "$folder/$1.log"
    exit 1
}

now() { date +%s%N; }

# The template holds something, so that guests read it through their own images.
head -c 8388608 /dev/urandom > "$folder/raw"
"$emu" img convert -f raw -O qcow2 "$folder/raw" "$folder/template.qcow2"
sum=$(head -c 1048576 "$folder/raw" | sha256sum | cut -d' ' -f1)

begin=$(now)
for i in $(seq "$number"); do
    "$emu" img create -q -f qcow2 -b template.qcow2 -F qcow2 "$folder/$i.qcow2"
done
echo "$number images on top of the template: $(( ($(now) - begin) / 1000000 / number )) ms each, $(du -k "$folder/1.qcow2" | cut -f1) KiB each"

# The guest reads a MiB of the template, writes one of its own, tells, and stays.
# shellcheck disable=SC2016  # the guest's variables
commands='for m in /lib/disk/*; do insmod $m; done; until [ -b /dev/sda ]; do sleep 1; done;
echo READ $(dd if=/dev/sda bs=64k count=16 | sha256sum | cut -c1-64);
dd if=/dev/urandom of=/dev/sda bs=64k seek=16 count=16 conv=fsync && echo WRITTEN; sleep 100000'
commands=$(echo "$commands" | tr '\n' ' ')

begin=$(now)
for i in $(seq "$number"); do
    "$emu" -m 96 -display none -monitor none -no-reboot -kernel "$root/cache/amd64/linux" -initrd "$root/cache/amd64/disk.cpio" \
        -append "console=ttyS0 quiet emu_run=\"$commands\"" -serial "file:$folder/$i.log" \
        -drive "file=$folder/$i.qcow2,format=qcow2" &
    pids="$pids $!"
done
for i in $(seq "$number"); do
    until grep -q "WRITTEN\|panic" "$folder/$i.log" 2>/dev/null; do
        [ $(( ($(now) - begin) / 1000000000 )) -lt 1800 ] || fail "$i" "is not ready after half an hour"
        sleep 1
    done
    ! grep -q panic "$folder/$i.log" || fail "$i" "has panicked"
    grep -q "READ $sum" "$folder/$i.log" || fail "$i" "has read something else"
    [ "$i" != 1 ] || echo "the first guest has read and written after $(( ($(now) - begin) / 1000000000 )) s"
done
echo "$number guests have read and written after $(( ($(now) - begin) / 1000000000 )) s"
total=0
for pid in $pids; do
    pss=$(awk '/^Pss:/ { print $2 }' "/proc/$pid/smaps_rollup")
    total=$((total + pss))
done
echo "memory: $((total / 1024)) MiB together, $((total / 1024 / number)) MiB each"
# shellcheck disable=SC2086  # a list of numbers
kill $pids
# shellcheck disable=SC2086
wait $pids 2>/dev/null || true
pids=
for i in $(seq "$number"); do
    qemu-img check -q "$folder/$i.qcow2" || "$emu" img check "$folder/$i.qcow2"
done
echo "all images pass qemu-img check"
done=yes
