# What the scripts with Debian on a disk share: making the disk, and the conversation with the guest's serial console. Sourced, by bash;
# the script sets first:
#
#   arch      amd64 or i386
#   folder    a temporary folder of its own: the console's text is in $folder/console, what emu complains of in $folder/errors
#   emu       the emulator

pid=
trap '[ -z "$pid" ] || kill -9 "$pid" 2>/dev/null || true' EXIT

first_sector=2048
sectors=$((1536 * 2048))

die() {
    echo "$(basename "$0"): $arch: $*" >&2
    tail -n 20 "$folder/console" >&2 || true
    exit 1
}

# make_tree TREE PACKAGES - Debian with its kernel and these packages, separated by commas.
make_tree() {
    local tree=$1 kernel=linux-image-amd64
    [ "$arch" = amd64 ] || kernel=linux-image-686-pae
    debootstrap --arch="$arch" --variant=minbase --include="$kernel,$2" bookworm "$tree" \
        >"$folder/debootstrap.log" 2>&1 || { tail "$folder/debootstrap.log" >&2; exit 1; }
    rm -rf "$tree"/var/cache/apt/archives/*.deb "$tree"/var/lib/apt/lists/*
    echo debian >"$tree/etc/hostname"
    echo "LABEL=root / ext4 defaults 0 1" >"$tree/etc/fstab"
    chroot "$tree" chpasswd <<<"root:emu"
}

# make_disk TREE IMAGE NAME=OPTION... - a disk with the tree on it, which GRUB in the MBR boots; the menu's entries with their options of
# the kernel.
make_disk() {
    local tree=$1 image=$2 grub=/usr/lib/grub/i386-pc entry
    shift 2
    mkdir -p "$tree/boot/grub"
    {
        printf '%s\n' "set default=0" "set timeout=0"
        for entry in "$@"; do
            echo "menuentry ${entry%%=*} { linux /vmlinuz root=LABEL=root ro quiet console=tty0 console=ttyS0 ${entry#*=}; initrd /initrd.img }"
        done
    } >"$tree/boot/grub/grub.cfg"
    truncate -s $(((first_sector + sectors) * 512)) "$image.part"
    echo "$first_sector,$sectors,L,*" | sfdisk -q "$image.part"
    mke2fs -q -t ext4 -L root -d "$tree" -E offset=$((first_sector * 512)) "$image.part" $((sectors / 2))k
    # As grub-install embeds it: the core image is in the gap after the MBR, where boot.img and diskboot.img look by default.
    grub-mkimage -O i386-pc -o "$folder/core.img" -p "(hd0,msdos1)/boot/grub" \
        biosdisk part_msdos ext2 normal linux echo configfile sleep
    dd if=$grub/boot.img of="$image.part" bs=440 count=1 conv=notrunc status=none
    dd if="$folder/core.img" of="$image.part" bs=512 seek=1 conv=notrunc status=none
    mv "$image.part" "$image"
    rm -rf "$tree"
}

# launch COMMAND... - a machine whose serial console is on stdio: what it says goes to $folder/console, keys come from file 3.
launch() {
    rm -f "$folder/console.in"
    mkfifo "$folder/console.in"
    exec 3<>"$folder/console.in"
    : >"$folder/console"
    started=$SECONDS
    "$@" <"$folder/console.in" >"$folder/console" 2>"$folder/errors" &
    pid=$!
}

# expect TEXT SECONDS - waits until the console has said it.
expect() {
    local end=$((SECONDS + $2))
    until grep -aqF -- "$1" "$folder/console"; do
        kill -0 "$pid" 2>/dev/null || die "emu ended before '$1': $(cat "$folder/errors")"
        [ $SECONDS -lt $end ] || die "no '$1' in $2 seconds"
        sleep 0.2
    done
}

type_line() { printf '%s\n' "$1" >&3; }

# finish SECONDS - waits until the machine has ended by itself.
finish() {
    local end=$((SECONDS + $1))
    while kill -0 "$pid" 2>/dev/null; do
        [ $SECONDS -lt $end ] || die "did not end in $1 seconds"
        sleep 0.2
    done
    wait "$pid" || die "emu failed: $(cat "$folder/errors")"
    pid=
}
