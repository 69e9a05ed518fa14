#!/bin/busybox sh
# The first program of emu's busybox guest (process 1 of the initramfs that mkinitramfs makes).
#
# The kernel command line can carry commands, as in emu_run="cat /proc/interrupts; dmesg": the kernel puts an option that it does
# not know into the environment of its first process. They run instead of the interactive shell, without any input, which makes
# the run repeatable. When the shell or the commands end, the machine powers off.

/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root PS1='emu# ' TERM="${TERM:-vt100}"
hostname emu
cd /root

echo "emu-guest: ready"
if [ -n "$emu_run" ]; then
    eval "$emu_run"
else
    # A session of its own with the console as controlling terminal: job control and Ctrl-C work.
    setsid cttyhack sh
fi
echo "emu-guest: power off"
poweroff -f
