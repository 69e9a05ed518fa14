#!/bin/bash
# Debian on a disk behind each network card on a user network: an address by DHCP (dhclient), a name by the host's name server, 256 MiB
# over HTTP from a server on the host's loopback, ssh and 32 MiB through it by a forwarded port, and a package that apt installs from a
# repository on the host. The kernel, the drivers and all programs are Debian's; only process 1 is a script, which does what it is told.
# Needs root, and the packages debootstrap, e2fsprogs, fdisk, grub-pc-bin, grub-common, openssh-client and python3. Run by hand, after
# "cargo build --release -p emu-frontend":
#
#   tests/network/debian_network.sh [ARCH] [CARDS] [EMU]          (default: amd64 "e1000 virtio-net-pci ne2k_pci", and ne2k_isa on i386,
#                                                                  whose kernel alone has a driver for it)
#
# The image is kept in cache/ARCH/network.img (five minutes once), with the key for ssh beside it.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
arch=${1:-amd64}
cards=${2:-e1000 virtio-net-pci ne2k_pci}
[ -n "${2:-}" ] || [ "$arch" = amd64 ] || cards="$cards ne2k_isa"
emu=${3:-${CARGO_TARGET_DIR:-$root/target}/release/emu}
image=${EMU_CACHE:-$root/cache}/$arch/network.img
key=${image%.img}.key
folder=$(mktemp -d)
patience=1800
. "$root/tests/debian.sh"

# A name and the address of the host's loopback as the guest sees it; a name server for it, on an address that nobody else has.
name=archive.emu.test
name_server=127.0.53.53
servers=
trap 'kill $servers 2>/dev/null || true; [ -z "$pid" ] || kill -9 "$pid" 2>/dev/null || true; rm -rf "$folder"' EXIT

make_image() {
    local tree=$folder/root
    make_tree "$tree" udev,kmod,e2fsprogs,procps,iproute2,isc-dhcp-client,openssh-server,wget
    rm -f "$key" "$tree/etc/resolv.conf"
    ssh-keygen -q -t ed25519 -N "" -f "$key"
    install -D -m 600 "$key.pub" "$tree/root/.ssh/authorized_keys"
    cat >"$tree/sbin/obey" <<'SCRIPT'
#!/bin/bash
# Process 1: carries out each line of the console.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DEBIAN_FRONTEND=noninteractive
mount -o remount,rw /
mkdir -p /run/sshd
stty -echo
echo "guest: ready"
while read -r line; do eval "$line"; done
SCRIPT
    chmod 755 "$tree/sbin/obey"
    make_disk "$tree" "$image" "Obey=net.ifnames=0 init=/sbin/obey"
}

# A repository with one package.
make_repository() {
    local package=$folder/package
    mkdir -p "$package/DEBIAN" "$package/usr/bin"
    printf '%s\n' "Package: emu-greeting" "Version: 1.0" "Architecture: all" "Maintainer: emu <emu@localhost>" \
        "Description: says that it has come over the network" >"$package/DEBIAN/control"
    printf '%s\n' "#!/bin/sh" "echo installed over the network" >"$package/usr/bin/emu-greeting"
    chmod 755 "$package/usr/bin/emu-greeting"
    dpkg-deb --root-owner-group -b "$package" "$folder/www/emu-greeting.deb" >/dev/null
    {
        cat "$package/DEBIAN/control"
        echo "Filename: ./emu-greeting.deb"
        echo "Size: $(stat -c %s "$folder/www/emu-greeting.deb")"
        echo "SHA256: $(sha256sum <"$folder/www/emu-greeting.deb" | cut -d' ' -f1)"
    } >"$folder/www/Packages"
}

# serve_names - answers each question for an address of $name, and with nothing all others.
serve_names() {
    python3 - "$name_server" "$name" <<'SCRIPT' &
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], 53))
name = b"".join(bytes([len(label)]) + label.encode() for label in sys.argv[2].split(".")) + b"\0"
while True:
    question, client = server.recvfrom(4096)
    end = question.index(b"\0", 12) + 5
    known = question[12:end - 4].lower() == name
    is_address = known and question[end - 4:end] == b"\0\1\0\1"
    head = question[:2] + (b"\x81\x80" if known else b"\x81\x83") + b"\0\1" + (b"\0\1" if is_address else b"\0\0") + bytes(4)
    answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x0a\0\2\2" if is_address else b""
    server.sendto(head + question[12:end] + answer, client)
SCRIPT
    servers="$servers $!"
}

# step WHAT LINE - has the guest carry out a line, which has to succeed.
step() {
    local begun=$SECONDS
    steps=$((steps + 1))
    type_line "{ $2; } && echo step $steps done. || echo step $steps failed."
    expect "step $steps " "$patience"
    sleep 0.2
    grep -aqF "step $steps done." "$folder/console" || die "$card: $1: failed"
    echo "$arch $card: $1: $((SECONDS - begun)) s"
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

[ -s "$image" ] || make_image
mkdir "$folder/www"
make_repository
openssl rand -out "$folder/www/large" $((256 << 20))
openssl rand -out "$folder/sent" $((32 << 20))
large=$(md5sum <"$folder/www/large" | cut -d' ' -f1)
sent=$(md5sum <"$folder/sent" | cut -d' ' -f1)
serve_names
web=$(free_port)
python3 -m http.server -b 127.0.0.1 -d "$folder/www" "$web" >"$folder/www.log" 2>&1 &
servers="$servers $!"
echo "nameserver $name_server" >"$folder/resolv.conf"
# In the image nothing may change, or the next run finds the package installed.
for card in $cards; do
    forwarded=$(free_port)
    steps=0
    device=$card,netdev=n
    # IRQ 9, the card's own, is ACPI's to Linux.
    [ "$card" != ne2k_isa ] || device=$device,irq=3
    # shellcheck disable=SC2016  # for the inner shell
    launch unshare -m sh -c 'mount --bind "$0" /etc/resolv.conf && exec "$@"' "$folder/resolv.conf" \
        "$emu" -m 512 -display none -no-reboot -snapshot -drive file="$image",format=raw,if=ide,index=0 -serial stdio -monitor none \
        -netdev user,id=n,hostfwd=tcp:127.0.0.1:"$forwarded"-:22 -device "$device"
    expect "guest: ready" "$patience"
    echo "$arch $card: up: $((SECONDS - started)) s"
    [ "$card" != ne2k_isa ] || step "driver" "modprobe ne io=0x300 irq=3"
    step "DHCP" "dhclient -1 eth0 && ip addr show eth0 | grep -q 10.0.2.15/24"
    step "name" "getent hosts $name | grep -q '^10.0.2.2 ' && ! getent hosts nobody.emu.test"
    step "256 MiB over HTTP" "wget -q -O - http://$name:$web/large | md5sum | grep -q $large"
    step "sshd" "/usr/sbin/sshd"
    remote=(ssh -q -i "$key" -p "$forwarded" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null root@127.0.0.1)
    begun=$SECONDS
    [ "$("${remote[@]}" 'tee /root/sent | md5sum' <"$folder/sent" | cut -d' ' -f1)" = "$sent" ] || die "$card: what ssh sent is wrong"
    [ "$("${remote[@]}" 'cat /root/sent' | md5sum | cut -d' ' -f1)" = "$sent" ] || die "$card: what ssh fetched is wrong"
    echo "$arch $card: 32 MiB by ssh each way: $((SECONDS - begun)) s"
    step "apt" "echo 'deb [trusted=yes] http://$name:$web/ ./' >/etc/apt/sources.list && apt-get -q update && apt-get -q -y install emu-greeting && emu-greeting | grep 'installed over'"
    step "no errors" "cat /proc/net/dev | tail -n 1; ! dmesg | grep -E 'NETDEV WATCHDOG|BUG|Oops'"
    grep -a 'eth0:' "$folder/console" | tail -n 1
    type_line "sync; echo o >/proc/sysrq-trigger"
    finish "$patience"
done
echo "$arch: passed"
