#!/bin/bash
# Two machines on one network: over a socket, and over TAP interfaces on a bridge in a network namespace of its own; one serves 16 MiB over
# HTTP, the other fetches them. And one machine behind passt, by a stream, which fetches 48 KiB from the host: the passt of Debian 12 resets
# connections after 64 KiB on some hosts, behind QEMU as well. Captures of all of it parse in tshark without a malformed packet.
# Needs root, the packages iproute2, tshark, passt and python3, and the files of scripts/guests.sh. Run by hand, after
# "cargo build --release -p emu-frontend":
#
#   tests/network/two_machines.sh [EMU]
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
emu=${1:-${CARGO_TARGET_DIR:-$root/target}/release/emu}
cache=${EMU_CACHE:-$root/cache}/amd64
folder=$(mktemp -d)
# passt gives its rights up, and writes its socket as somebody else.
chmod 777 "$folder"
space=emu-$$
started=
trap 'kill $started 2>/dev/null || true; ip netns del $space 2>/dev/null || true; rm -rf "$folder"' EXIT

die() {
    echo "two_machines.sh: $*" >&2
    tail -n 8 "$folder"/*.console >&2 || true
    exit 1
}

# machine NAME COMMANDS PREFIX... -- OPTION... - a guest that carries out the commands; its console is in $folder/NAME.console.
machine() {
    local name=$1 commands=$2 prefix=()
    shift 2
    while [ "$1" != -- ]; do prefix+=("$1"); shift; done
    shift
    "${prefix[@]}" "$emu" -m 256 -display none -monitor none -no-reboot -serial file:"$folder/$name.console" \
        -kernel "$cache/linux" -initrd "$cache/net.cpio" -object "filter-dump,id=d,netdev=n,file=$folder/$name.pcap" \
        -append "console=ttyS0 quiet emu_run=\"$commands\"" "$@" >"$folder/$name.errors" 2>&1 &
    pid=$!
    started="$started $pid"
}

modules="insmod /lib/net/*-e1000.ko"
serve="$modules; ifconfig eth0 192.168.7.1; mkdir /www; dd if=/dev/urandom of=/new bs=1M count=16; md5sum </new; mv /new /www/file; httpd -p 80 -h /www; sleep 100000"
fetch="$modules; ifconfig eth0 192.168.7.2; until wget -q -O /file http://192.168.7.1/file; do sleep 1; done; md5sum </file; ping -c 3 192.168.7.1"

sum() { grep -ao '^[0-9a-f]\{32\}  -' "$folder/$1.console"; }

# parses NAME - the capture has packets of HTTP and of ping, and none that is malformed.
parses() {
    local packets malformed
    packets=$(tshark -r "$folder/$1.pcap" -Y "${2:-tcp.port == 80 or icmp}" 2>/dev/null | wc -l)
    malformed=$(tshark -r "$folder/$1.pcap" -Y _ws.malformed 2>/dev/null | wc -l)
    [ "$packets" -gt 20 ] || die "$1: only $packets packets in the capture"
    [ "$malformed" = 0 ] || die "$1: $malformed malformed packets"
    echo "$1: capture: $packets packets, none malformed"
}

# pair NAME PREFIX... -- NETDEV NETDEV - two machines; the second one's end is the end.
pair() {
    local name=$1 prefix=()
    shift
    while [ "$1" != -- ]; do prefix+=("$1"); shift; done
    machine "$name-server" "$serve" "${prefix[@]}" -- -netdev "$2" -device e1000,netdev=n
    local server=$pid
    sleep 1
    machine "$name-client" "$fetch" "${prefix[@]}" -- -netdev "$3" -device e1000,netdev=n,mac=52:54:00:12:34:99
    wait "$pid" || die "$name: the client failed: $(cat "$folder/$name-client.errors")"
    kill "$server"
    wait "$server" || true
    [ "$(sum "$name-server")" = "$(sum "$name-client")" ] || die "$name: sums differ"
    grep -aq "3 packets received" "$folder/$name-client.console" || die "$name: no answers to pings"
    echo "$name: 16 MiB and pings"
    parses "$name-server"
    parses "$name-client"
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

port=$(free_port)
pair socket -- "socket,id=n,listen=127.0.0.1:$port" "socket,id=n,connect=127.0.0.1:$port"

ip netns add "$space"
inside="ip netns exec $space"
$inside ip link add br0 type bridge
for number in 0 1; do
    $inside ip tuntap add dev tap$number mode tap
    $inside ip link set tap$number master br0 up
done
$inside ip link set br0 up
# shellcheck disable=SC2086  # words
pair tap $inside -- "tap,id=n,ifname=tap0,script=no,downscript=no" "tap,id=n,ifname=tap1,script=no,downscript=no"

head -c $((48 << 10)) /dev/urandom >"$folder/file"
port=$(free_port)
python3 -m http.server -b 127.0.0.1 -d "$folder" "$port" >"$folder/www.log" 2>&1 &
started="$started $!"
passt -q -f -s "$folder/passt.socket" -a 192.168.7.2 -g 192.168.7.1 -n 24 -D none >"$folder/passt.log" 2>&1 &
started="$started $!"
sleep 1
# passt takes what goes to the gateway to the host's loopback.
machine passt "$modules; udhcpc -i eth0 -s /etc/udhcpc/default.script -n -q; wget -q -O - http://192.168.7.1:$port/file | md5sum" \
    -- -netdev "stream,id=n,server=off,addr.type=unix,addr.path=$folder/passt.socket" -device e1000,netdev=n
wait "$pid" || die "passt: $(cat "$folder/passt.errors" "$folder/passt.log")"
[ "$(sum passt)" = "$(md5sum <"$folder/file")" ] || die "passt: sums differ: $(cat "$folder/passt.log")"
echo "passt: DHCP and 48 KiB over a stream"
parses passt "tcp.port == $port"
