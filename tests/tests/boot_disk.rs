//! Debian's kernel on IDE drives: its own drivers read and write a disk by DMA and read a CD-ROM, and what has arrived is
//! compared with the host's files.

use emu_tests::guest::{Guest, Machine, cached};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const MIB: usize = 1 << 20;

/// A folder of images that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        let path = std::env::temp_dir().join(format!("emu-boot-disk-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a temporary folder");
        Folder(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).expect("a temporary file");
        path
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

#[test]
fn linux_copies_disk_and_cd_and_keeps_files_on_ext4() {
    let folder = Folder::new();
    let (contents, disc) = (noise(16 * MIB, 1), noise(3 * MIB, 2));
    let mut before = contents.clone();
    before.resize(40 * MIB, 0);
    let (disk, second) = (folder.file("disk", &before), folder.file("second", &vec![0; 32 * MIB]));
    let cd = folder.file("cd", &disc);

    let machine = Machine::under_test().unwrap_or_else(|error| panic!("{error}"));
    let mut command = machine.command();
    command.args(["-m", "512", "-append", "console=ttyS0"]);
    command.arg("-kernel").arg(cached("amd64", "linux").unwrap_or_else(|error| panic!("{error}")));
    command.arg("-initrd").arg(cached("amd64", "disk.cpio").unwrap_or_else(|error| panic!("{error}")));
    command.arg("-drive").arg(format!("file={},format=raw,index=0", disk.display()));
    command.arg("-drive").arg(format!("file={},format=raw,index=1,if=ide", second.display()));
    command.arg("-cdrom").arg(&cd);

    let mut guest = Guest::start(&mut command, Duration::from_secs(600)).unwrap_or_else(|error| panic!("{error}"));
    let mut step = |line: &str, answers: &[&str]| {
        guest.expect("emu# ").and_then(|_| guest.send_line(line)).unwrap_or_else(|error| panic!("{error}"));
        for answer in answers {
            guest.expect(answer).unwrap_or_else(|error| panic!("{error}"));
        }
    };
    step(
        "for m in /lib/disk/*; do insmod $m; done; until ls /dev/sr0 /dev/sda /dev/sdb; do sleep 1; done",
        &["/dev/sr0"],
    );
    // The drivers find them in any order.
    step("a=/dev/$(ls /sys/bus/scsi/devices/0:0:0:0/block); b=/dev/$(ls /sys/bus/scsi/devices/0:0:1:0/block)", &[]);
    step("echo drives: $(dmesg | grep -c 'ata.*max UDMA/100')", &["drives: 3"]);
    step("dd if=$a of=$a bs=1M count=16 seek=16 conv=fsync,notrunc && echo disk co''pied", &["disk copied"]);
    step("dd if=/dev/sr0 of=$a bs=64k seek=512 conv=fsync,notrunc && echo disc co''pied", &["disc copied"]);
    step(
        "mke2fs $b >/dev/null && mkdir /mnt && mount -t ext4 $b /mnt && cp /bin/busybox /mnt && umount /mnt; echo",
        &[],
    );
    step("mount -t ext4 $b /mnt && cmp /mnt/busybox /bin/busybox && umount /mnt && echo file ke''pt", &["file kept"]);
    step("echo errors: $(dmesg | grep -c -E 'ata.*(exception|failed|reset)')", &["errors: 0"]);
    step("poweroff -f", &["reboot: Power down"]);
    let status = guest.wait().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(status.code(), Some(0), "{}", guest.errors());

    let after = fs::read(&disk).expect("the image");
    assert_eq!(after.len(), 40 * MIB);
    assert!(after[..16 * MIB] == contents, "the source has changed");
    assert!(after[16 * MIB..32 * MIB] == contents, "the copy differs");
    assert!(after[32 * MIB..35 * MIB] == disc, "the copy of the disc differs");
    assert!(after[35 * MIB..].iter().all(|byte| *byte == 0), "more than that was written");
}
