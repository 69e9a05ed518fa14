#!/bin/bash
# Linux's own driver (snd-sb16, with aplay and arecord) finds the Sound Blaster 16, plays in 16 bits stereo and 8 bits mono, records,
# and plays through /dev/dsp; what arrives in the WAV file has the pitches, lengths and channels of what was played.
# Needs a Debian-like host with apt-get, the guest of "scripts/guests.sh i386", and the package sox. Run by hand, after
# "cargo build --release -p emu-frontend":
#
#   tests/sound/linux_sb16.sh [EMU]
#
# About a minute, and 60 MB of packages. The recording and the guest's log are left in the folder that is printed.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
emu=${1:-${CARGO_TARGET_DIR:-$root/target}/release/emu}
guest=${EMU_CACHE:-$root/cache}/i386
folder=$(mktemp -d)
fail() {
    echo "linux_sb16.sh: $* (see $folder)" >&2
    exit 1
}
command -v sox >/dev/null || fail "install sox"
[ -r "$guest/busybox.cpio" ] || fail "run scripts/guests.sh i386 first"

# Package lists of our own, as in scripts/guests.sh.
apt() {
    apt-get -qq -o Dir::State::lists="$folder/apt/lists" -o Dir::Cache="$folder/apt" -o APT::Architectures::=amd64 \
        -o APT::Architectures::=i386 -o APT::Sandbox::User="$(id -un)" "$@" >>"$folder/apt.log" 2>&1
}
version=$(gzip -dc "$guest/initrd.gz" | "$guest/busybox" cpio -t 2>/dev/null | sed -n 's|^lib/modules/\([^/]*\)/kernel$|\1|p')
mkdir -p "$folder/apt/lists/partial" "$folder/apt/archives/partial" "$folder/packages" "$folder/all" "$folder/root/modules"
cd "$folder/packages"
apt update || true
apt download "linux-image-$version:i386" {alsa-utils,libasound2,libatopology2,libc6}:i386 libasound2-data || fail "no packages"
for package in *.deb; do dpkg-deb -x "$package" "$folder/all"; done

cd "$folder/root"
number=10
for module in soundcore snd snd-sb-common snd-seq-device snd-timer snd-hwdep snd-opl3-lib snd-pcm snd-sb16-dsp snd-sb16-csp \
    snd-rawmidi snd-mpu401-uart snd-mixer-oss snd-pcm-oss snd-sb16; do
    find "$folder/all/lib/modules" -name "$module.ko" -exec cp {} "modules/$number-$module.ko" \;
    number=$((number + 1))
done
mkdir -p usr/bin usr/lib/i386-linux-gnu usr/share lib
cp "$folder"/all/usr/bin/{aplay,arecord,amixer} usr/bin/
cp -L "$folder"/all/lib/i386-linux-gnu/{libc,libm}.so.6 "$folder"/all/usr/lib/i386-linux-gnu/lib{asound,atopology}.so.2 usr/lib/i386-linux-gnu/
cp -L "$folder/all/lib/i386-linux-gnu/ld-linux.so.2" lib/
cp -r "$folder/all/usr/share/alsa" usr/share/
sox -q -n -r 44100 -b 16 -c 2 wide.wav synth 2 sine 440 sine 660 vol 0.5
sox -q -n -r 22050 -b 8 -c 1 narrow.wav synth 2 sine 550 vol 0.5
sox -q -n -r 8000 -t u8 -c 1 plain.raw synth 2 sine 330 vol 0.5
cat >init <<'INIT'
#!/bin/sh
export PATH=/bin:/usr/bin LD_LIBRARY_PATH=/usr/lib/i386-linux-gnu
busybox mount -t proc proc /proc
busybox mount -t devtmpfs devtmpfs /dev
for module in /modules/*.ko; do
    case $module in
    *-snd-sb16.ko) busybox insmod "$module" isapnp=0 port=0x220 irq=5 dma8=1 dma16=5 mpu_port=0x330 ;;
    *) busybox insmod "$module" ;;
    esac
done
busybox cat /proc/asound/cards
amixer -q set Master 100%
amixer -q set PCM 100%
aplay -q /wide.wav && echo "16 bits: played"
busybox sleep 1
aplay -q /narrow.wav && echo "8 bits: played"
busybox sleep 1
busybox cat /plain.raw >/dev/dsp && echo "/dev/dsp: played"
arecord -q -f S16_LE -r 22050 -d 1 /recorded.wav && busybox wc -c /recorded.wav
busybox poweroff -f
INIT
chmod +x init
find . | "$guest/busybox" cpio -o -H newc 2>/dev/null | cat "$guest/busybox.cpio" - >"$folder/sound.cpio"

timeout 600 "$emu" -m 256 -nographic -no-reboot -kernel "$guest/linux" -initrd "$folder/sound.cpio" -append "console=ttyS0 quiet" \
    -audiodev "wav,id=snd,path=$folder/recording.wav" -device sb16,audiodev=snd </dev/null >"$folder/guest.log" || fail "emu failed"
for line in "Sound Blaster 16 at 0x220, irq 5, dma 1&5" "16 bits: played" "8 bits: played" "/dev/dsp: played" "44144 /recorded.wav"; do
    grep -q "$line" "$folder/guest.log" || fail "the guest did not say '$line'"
done

# expect NUMBER SIDE HERTZ - sound number NUMBER of the recording lasts 2 seconds and has a pitch.
expect() {
    local number=$1 side=$2 hertz=$3 one=$folder/$1-$2.wav
    # Each sound begins where there is some and ends with half a second of none.
    sox -q "$folder/recording.wav" "$folder/part.wav" remix "$side" silence 1 0.01 2% 1 0.5 2% : newfile : restart
    # What the steps between samples add at higher pitches would spoil sox's estimate.
    sox -q "$folder/part00$number.wav" "$one" trim 0.1 1.7 lowpass 800 lowpass 800 vol 0.9
    read -r length <<<"$(sox --i -D "$folder/part00$number.wav")"
    pitch=$(sox "$one" -n stat 2>&1 | sed -n 's/^Rough *frequency: *//p')
    rm "$folder"/part0*.wav
    echo "sound $number, channel $side: $length s, $pitch Hz"
    awk -v l="$length" -v p="$pitch" -v h="$hertz" 'BEGIN { exit !(l > 1.9 && l < 2.7 && p > h * 0.99 && p < h * 1.01) }' ||
        fail "sound $number on channel $side is not 2 s of $hertz Hz"
}
expect 1 1 440
expect 1 2 660
expect 2 1 550
expect 2 2 550
expect 3 1 330
expect 3 2 330
echo "passed: $folder"
