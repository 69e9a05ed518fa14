//! Debian's kernels on virtio devices: Linux's own drivers read and write disks, ask for entropy, talk over ports and blow up the
//! balloon, through the modern interface and through the legacy one.

use emu_tests::guest::{Guest, GuestError, Machine, cached};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
const LIMIT: Duration = Duration::from_secs(300);

/// A folder of images and sockets that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("emu-virtio-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a temporary folder");
        Folder(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        fs::write(self.0.join(name), bytes).expect("a temporary file");
        self.path(name)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left in a temporary folder harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// A guest that has loaded its virtio drivers.
struct Linux(Guest);

impl Linux {
    fn boot(architecture: &str, arguments: &[&str]) -> Linux {
        let start = || -> Result<Guest, GuestError> {
            let machine = Machine::under_test().map_err(GuestError::new)?;
            let mut command = machine.command();
            command.args(["-m", "256", "-append", "console=ttyS0"]);
            command.arg("-kernel").arg(cached(architecture, "linux")?);
            command.arg("-initrd").arg(cached(architecture, "disk.cpio")?);
            command.args(arguments);
            Guest::start(&mut command, LIMIT)
        };
        let mut linux = Linux(start().unwrap_or_else(|error| panic!("{error}")));
        linux.run("for m in /lib/virtio/*; do insmod $m; done; echo driv''ers", "drivers");
        linux
    }

    /// Types `line` and waits for `answer`; what came before that.
    fn run(&mut self, line: &str, answer: &str) -> String {
        let mut talk = || {
            self.0.expect("emu# ")?;
            self.0.send_line(line)?;
            // The echo, which may be broken into several lines, ends where the command's own output begins.
            self.0.expect(answer)
        };
        talk().unwrap_or_else(|error| panic!("{error}"))
    }

    fn end(mut self) {
        self.run("poweroff -f", "reboot: Power down");
        let status = self.0.wait().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(status.code(), Some(0), "{}", self.0.errors());
    }
}

/// A disk is copied within itself, filled with a file system, and looked at from the host.
fn disk(architecture: &str, name: &str, device: &str) {
    let folder = Folder::new(name);
    let contents = noise(8 * MIB, 1);
    let mut before = contents.clone();
    before.resize(24 * MIB, 0);
    let disk = folder.file("disk", &before);
    let second = folder.file("second", &vec![0; 16 * MIB]);
    let drives = [
        format!("if=none,id=a,format=raw,file={disk}"),
        format!("if=virtio,format=raw,file={second}"),
        format!("{device},drive=a,serial=first"),
    ];
    let mut linux = Linux::boot(architecture, &["-drive", &drives[0], "-drive", &drives[1], "-device", &drives[2]]);
    linux.run("for m in /lib/disk/*; do insmod $m; done 2>/dev/null; cat /sys/block/vda/serial; echo", "first");
    linux.run(
        "echo cache: $(cat /sys/block/vda/queue/write_cache) $(cat /sys/block/vda/size)",
        "cache: write back 49152",
    );
    let copy = "dd if=/dev/vda of=/dev/vda bs=1M count=8 seek=8 conv=fsync,notrunc && echo disk co''pied";
    linux.run(copy, "disk copied");
    let direct =
        "dd if=/dev/vda of=/dev/vda bs=4k count=64 seek=4096 iflag=direct oflag=direct conv=notrunc && echo direct''ly";
    linux.run(direct, "directly");
    linux.run("mkdir /mnt; mke2fs /dev/vdb >/dev/null && mount -t ext4 -o discard /dev/vdb /mnt && cp /bin/busybox /mnt && umount /mnt; echo a", "a");
    linux.run("mount -t ext4 /dev/vdb /mnt && cmp /mnt/busybox /bin/busybox && rm /mnt/busybox && umount /mnt && echo file ke''pt", "file kept");
    linux.run("echo errors: $(dmesg | grep -c -E 'I/O error|virtio.*(fail|wrong)')", "errors: 0");
    linux.end();
    let after = fs::read(&disk).expect("the image");
    assert_eq!(after.len(), 24 * MIB);
    assert!(after[..8 * MIB] == contents && after[8 * MIB..16 * MIB] == contents, "the copy differs");
    assert!(after[16 * MIB..][..MIB / 4] == contents[..MIB / 4], "the direct copy differs");
    assert!(after[16 * MIB + MIB / 4..].iter().all(|byte| *byte == 0), "more than that was written");
}

#[test]
fn amd64_disk_modern_with_messages() {
    disk("amd64", "modern", "virtio-blk-pci,disable-legacy=on");
}

/// Runs `emu img`; its exit status.
fn img(arguments: &[&str]) -> i32 {
    let Ok(Machine::Emu(emu)) = Machine::under_test() else { panic!("no emu, whose images these are") };
    let status = Command::new(emu).arg("img").args(arguments).status().expect("emu img");
    status.code().expect("an exit status")
}

#[test]
fn amd64_disk_legacy_with_messages() {
    disk("amd64", "legacy", "virtio-blk-pci,disable-modern=on");
}

#[test]
fn amd64_disk_keeps_what_was_flushed_when_the_machine_is_killed() {
    const WRITES: usize = 40;
    let folder = Folder::new("killed");
    let (image, flat) = (folder.path("image"), folder.path("flat"));
    assert_eq!(img(&["create", "-q", "-f", "qcow2", &image, "64M"]), 0);
    let drive = format!("if=none,id=a,format=qcow2,file={image}");
    let mut linux = Linux::boot("amd64", &["-drive", &drive, "-device", "virtio-blk-pci,disable-modern=on,drive=a"]);
    let write = "yes $i | dd of=/dev/vda bs=4k count=1 seek=$((i * 4099 % 16381)) iflag=fullblock conv=fsync,notrunc 2>/dev/null";
    let line = format!("i=1; while {write}; do echo flush''ed $i; i=$((i + 1)); done");
    linux.run(&line, &format!("flushed {WRITES}\r"));
    // SIGKILL, while it goes on writing.
    drop(linux);
    // Leaked clusters, status 3, cost room and nothing else.
    assert!(matches!(img(&["check", "-f", "qcow2", &image]), 0 | 3));
    assert_eq!(img(&["convert", "-f", "qcow2", "-O", "raw", &image, &flat]), 0);
    let flat = fs::read(flat).expect("the image's contents");
    for i in 1..=WRITES {
        let wanted = format!("{i}\n").repeat(4096);
        let place = i * 4099 % 16381 * 4096;
        assert!(flat[place..place + 4096] == wanted.as_bytes()[..4096], "write {i} is lost");
    }
}

#[test]
fn i386_disk_modern_with_intx() {
    disk("i386", "intx", "virtio-blk-pci,vectors=0");
}

#[test]
fn i386_disk_legacy_with_intx() {
    disk("i386", "legacy-intx", "virtio-blk-pci,disable-modern=on,vectors=0,event_idx=off,indirect_desc=off");
}

/// Entropy, console, port and balloon.
fn others(architecture: &str, name: &str, options: &str) {
    let folder = Folder::new(name);
    let entropy = folder.file("entropy", &[b'E'; 1 << 20]);
    let (port, console, monitor) = (folder.path("port"), folder.path("console"), folder.path("monitor"));
    let server = |id: &str, path: &str| format!("socket,id={id},path={path},server=on,wait=off");
    let arguments = [
        format!("rng-random,id=r,filename={entropy}"),
        format!("virtio-rng-pci,rng=r{options}"),
        server("p", &port),
        server("c", &console),
        format!("virtio-serial-pci{options}"),
        format!("virtio-balloon-pci{options}"),
        format!("unix:{monitor},server=on,wait=off"),
    ];
    let [object, rng, port_device, console_device, serial, balloon, unix] = arguments.each_ref().map(String::as_str);
    let mut linux = Linux::boot(
        architecture,
        &[
            "-object",
            object,
            "-device",
            rng,
            "-chardev",
            port_device,
            "-chardev",
            console_device,
            "-device",
            serial,
            "-device",
            "virtserialport,chardev=p,name=org.emu.port",
            "-device",
            "virtconsole,chardev=c",
            "-device",
            balloon,
            "-monitor",
            unix,
        ],
    );
    linux.run("cat /sys/class/misc/hw_random/rng_current; echo", "virtio_rng.0");
    linux.run("echo $(dd if=/dev/hwrng bs=64 count=4 2>/dev/null | tr -d E | wc -c) others, $(dd if=/dev/hwrng bs=8 count=1 2>/dev/null)", "0 others, EEEEEEEE");

    let mut far = UnixStream::connect(&port).expect("the port's socket");
    linux.run("cat /sys/class/virtio-ports/vport*/name; echo", "org.emu.port");
    linux.run("p=/dev/$(ls /sys/class/virtio-ports | tail -n 1); echo from the guest >$p; echo se''nt", "sent");
    assert_eq!(read_line(&mut far), "from the guest\n");
    linux.run("(read line <$p; echo $line | tr a-z A-Z >$p) & echo rea''dy", "ready");
    far.write_all(b"from the host\n").expect("a port that takes it");
    assert_eq!(read_line(&mut far), "FROM THE HOST\n");

    let mut far = UnixStream::connect(&console).expect("the console's socket");
    linux.run("(stty -F /dev/hvc0 raw -echo; read line; echo $line | tr a-z A-Z) </dev/hvc0 >/dev/hvc0 & sleep 1; echo rea''dy", "ready");
    far.write_all(b"on the console\n").expect("a console that takes it");
    assert!(read_line(&mut far).contains("ON THE CONSOLE"));

    let mut far = UnixStream::connect(&monitor).expect("the monitor's socket");
    read_until(&mut far, "(qemu) ");
    let mut command = |line: &str| {
        far.write_all(format!("{line}\n").as_bytes()).expect("a monitor that listens");
        read_until(&mut far, "(qemu) ")
    };
    let total = "awk '/MemTotal/ {print int($2/1024)}' /proc/meminfo";
    linux.run(&format!("before=$({total}); echo wh''ole"), "whole");
    for mib in [192, 256] {
        command(&format!("balloon {mib}"));
        let start = Instant::now();
        while !command("info balloon").contains(&format!("balloon: actual={mib}")) {
            assert!(start.elapsed() < LIMIT, "the balloon does not reach {mib}");
            std::thread::sleep(Duration::from_millis(100));
        }
        let line = format!("echo gone: $((before - $({total}) - {}))", 256 - mib);
        linux.run(&line, "gone: 0");
    }
    linux.end();
}

fn read_until(stream: &mut UnixStream, end: &str) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let mut all = Vec::new();
    let mut byte = [0];
    while !all.ends_with(end.as_bytes()) {
        match stream.read(&mut byte) {
            Ok(1..) => all.push(byte[0]),
            end => panic!("{end:?} after {:?}", String::from_utf8_lossy(&all)),
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

fn read_line(stream: &mut UnixStream) -> String {
    read_until(stream, "\n").replace('\r', "")
}

#[test]
fn amd64_entropy_ports_and_balloon() {
    others("amd64", "others", "");
}

#[test]
fn i386_entropy_ports_and_balloon_legacy() {
    others("i386", "others-legacy", ",disable-modern=on");
}
