//! `emu img` beside `qemu-img`: the same words, the same exit codes, and images that each takes from the other.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

/// What begins the part about the host's file in what `info` prints.
const CHILD: &str = "Child node";

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("emu-img-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn run(&self, program: &str, line: &str) -> Output {
        let mut command = match program {
            "emu" => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_emu"));
                command.arg("img");
                command
            }
            _ => Command::new("qemu-img"),
        };
        command.args(line.split_whitespace().map(|word| if word == "''" { "" } else { word }));
        command.current_dir(&self.0).env("TZ", "UTC").output().unwrap()
    }

    /// Runs `emu img`, which must end with `status`; what it prints.
    fn emu(&self, line: &str, status: i32) -> String {
        let output = self.run("emu", line);
        let text = String::from_utf8(output.stdout).unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{line}: {text}{complaint}");
        assert!(complaint.lines().count() <= 1, "{complaint}");
        if status == 0 { text } else { text + &complaint }
    }

    /// What `qemu-img` prints, under our name; `None` where it is not installed.
    fn qemu(&self, line: &str, status: i32) -> Option<String> {
        if Command::new("qemu-img").arg("--version").output().is_err() {
            eprintln!("qemu-img is not installed: not compared");
            return None;
        }
        let output = self.run("qemu-img", line);
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{line}: {complaint}");
        let text = String::from_utf8(output.stdout).unwrap();
        Some(if status == 0 { text } else { text + &complaint.replace("qemu-img: ", "emu: img: ") })
    }

    /// Both print the same.
    fn same(&self, line: &str, status: i32) {
        let mut own = self.emu(line, status);
        if let Some(theirs) = self.qemu(line, status) {
            // Nor, before 8.2, of compression in maps.
            if !theirs.contains("\"compressed\"") {
                own = own.replace(", \"compressed\": false", "").replace(", \"compressed\": true", "");
            }
            // Before 9.1 tables of snapshots had other columns.
            if theirs.contains("VM SIZE") {
                let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
                let new = words(&theirs).replace("VM SIZE", "VM_SIZE").replace("VM CLOCK", "VM_CLOCK");
                assert_eq!(
                    words(&own[..own.find(CHILD).unwrap_or(own.len())]),
                    new.replace(" 00:00:", " 0000:00:"),
                    "{line}"
                );
                return;
            }
            // Before version 8 nothing was said of the host's file.
            let end = own.find(CHILD).filter(|_| !theirs.contains(CHILD)).unwrap_or(own.len());
            assert_eq!(own[..end], theirs, "{line}");
        }
    }

    /// A raw file with data here and there.
    fn raw(&self, name: &str, seed: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let mut number = seed;
        for chunk in bytes.chunks_mut(40_000) {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if number >> 62 != 0 {
                let n = (number >> 20) as usize % chunk.len();
                chunk[..n].iter_mut().enumerate().for_each(|(i, b)| *b = (number >> (i % 40)) as u8);
            }
        }
        fs::write(self.0.join(name), &bytes).unwrap();
        bytes
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.0.join(name)).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn create_info_check_and_map_print_what_qemu_img_prints() {
    let f = Folder::new("words");
    f.raw("data", 1, 3 << 20);
    for line in [
        "create -f qcow2 a.qcow2 10M",
        "create -f qcow2 -o cluster_size=4k,refcount_bits=1,compression_type=zstd,lazy_refcounts=on b.qcow2 1G",
        "create -f qcow2 -o compat=0.10 c.qcow2 1M",
        "create -f qcow2 -b a.qcow2 -F qcow2 d.qcow2",
        "create -f raw e.raw 5M",
        "create -f qcow2 -o preallocation=metadata i.qcow2 1M",
    ] {
        f.same(line, 0);
    }
    f.emu("convert -f raw -O qcow2 data g.qcow2", 0);
    f.emu("create -q -f qcow2 -b g.qcow2 -F qcow2 h.qcow2 4M", 0);
    f.same("check g.qcow2", 0);
    f.same("check e.raw", 63);
    for file in ["a.qcow2", "b.qcow2", "c.qcow2", "d.qcow2", "g.qcow2", "h.qcow2", "i.qcow2"] {
        f.same(&format!("info -f qcow2 {file}"), 0);
        let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let mut own = json(&f.emu(&format!("info --output=json {file}"), 0));
        if let Some(theirs) = f.qemu(&format!("info --output=json {file}"), 0).as_deref().map(json) {
            if theirs.get("children").is_none() {
                own.as_object_mut().unwrap().remove("children");
            }
            assert_eq!(own, theirs);
        }
        f.same(&format!("map --output=json {file}"), 0);
        f.same(&format!("map {file}"), 0);
    }
    f.emu("snapshot -c one g.qcow2", 0);
    f.emu("snapshot -c two g.qcow2", 0);
    f.same("snapshot -l g.qcow2", 0);
    f.same("info g.qcow2", 0);
    f.emu("snapshot -d one g.qcow2", 0);
    assert!(f.emu("snapshot -a three g.qcow2", 1).contains("Could not apply snapshot 'three'"));
    f.same("check g.qcow2", 0);
}

#[test]
fn convert_copies_every_format_into_every_other() {
    let f = Folder::new("convert");
    let data = f.raw("data.raw", 7, 3 << 20);
    let formats = ["raw", "qcow2", "vmdk", "vdi", "vpc", "vhdx"];
    for from in formats {
        if from != "raw" {
            f.emu(&format!("convert -f raw -O {from} data.raw data.{from}"), 0);
            f.qemu(&format!("compare -f raw -F {from} data.raw data.{from}"), 0);
        }
        for to in formats {
            f.emu(&format!("convert -f {from} -O {to} data.{from} out.{to}"), 0);
            assert_eq!(f.emu(&format!("compare -f {to} out.{to} data.raw -F raw"), 0), "Images are identical.\n");
        }
        assert!(f.read("out.raw") == data, "{from}");
    }
    let shown = f.emu("convert -p -c -f raw -O qcow2 data.raw small.qcow2", 0);
    assert!(shown.starts_with("    (0.00/100%)\r") && shown.ends_with("    (100.00/100%)\r\n"), "{shown:?}");
    f.qemu("check small.qcow2", 0);
    f.qemu("compare -f raw -F qcow2 data.raw small.qcow2", 0);
    f.emu("convert -c -O qcow2 -o compression_type=zstd -f raw data.raw data.raw two.qcow2", 0);
    f.emu("convert -f qcow2 -O raw two.qcow2 two.raw", 0);
    assert!(f.read("two.raw") == [data.clone(), data].concat());
    f.emu("convert -f raw -O qcow2 -o preallocation=metadata data.raw full.qcow2", 0);
    f.qemu("check full.qcow2", 0);
    f.qemu("compare -f raw -F qcow2 data.raw full.qcow2", 0);
}

#[test]
fn compare_tells_by_its_exit_code() {
    let f = Folder::new("compare");
    let mut data = f.raw("a", 3, 1 << 20);
    data[700_000] ^= 1;
    fs::write(f.0.join("b"), &data).unwrap();
    f.raw("c", 3, (1 << 20) + 4096);
    fs::write(f.0.join("d"), f.read("a").into_iter().chain([0; 4096]).collect::<Vec<u8>>()).unwrap();
    for (line, status) in [
        ("compare -f raw -F raw a a", 0),
        ("compare -f raw -F raw a b", 1),
        ("compare -f raw -F raw a d", 0),
        ("compare -s -f raw -F raw a d", 1),
    ] {
        f.same(line, status);
    }
    f.emu("compare -f raw -F raw a missing", 2);
    f.emu("compare -f qcow2 -F raw a a", 2);
}

#[test]
fn chains_are_committed_rebased_and_resized() {
    let f = Folder::new("chain");
    let base = f.raw("base.raw", 11, 2 << 20);
    let other = f.raw("other.raw", 12, 1 << 20);
    f.emu("create -q -f qcow2 -b base.raw -F raw top.qcow2", 0);
    assert_eq!(f.emu("compare -f raw base.raw top.qcow2 -F qcow2", 0), "Images are identical.\n");
    f.emu("rebase -b other.raw -F raw top.qcow2", 0);
    f.qemu("check top.qcow2", 0);
    f.emu("convert -f qcow2 -O raw top.qcow2 out.raw", 0);
    assert!(f.read("out.raw") == base);
    assert_eq!(f.emu("commit top.qcow2", 0), "Image committed.\n");
    assert!(f.read("other.raw") == base && other != base);
    f.emu("rebase -u -b base.raw -F raw top.qcow2", 0);
    assert!(f.emu("info top.qcow2", 0).contains("backing file: base.raw\n"));
    f.emu("rebase -b '' top.qcow2", 0);
    f.emu("convert -O raw top.qcow2 out.raw", 0);
    assert!(f.read("out.raw") == base);
    assert!(f.emu("resize top.qcow2 1M", 1).contains("Use the --shrink option"));
    assert_eq!(f.emu("resize --shrink top.qcow2 1M", 0), "Image resized.\n");
    f.emu("resize top.qcow2 +3M", 0);
    f.qemu("check top.qcow2", 0);
    f.emu("convert -O raw top.qcow2 out.raw", 0);
    assert!(f.read("out.raw") == [&base[..1 << 20], &vec![0; 3 << 20]].concat());
}

#[test]
fn image_cannot_name_files_outside_its_folder() {
    let f = Folder::new("outside");
    let secret = Folder::new("outside-secret");
    secret.raw("secret", 1, 1 << 20);
    let victim = secret.0.join("secret").display().to_string();
    fs::create_dir_all(f.0.join("below")).unwrap();
    f.raw("below/base.raw", 1, 1 << 20);
    // Made by others: nothing is opened for it.
    f.emu(&format!("create -q -u -f qcow2 -b {victim} -F raw evil.qcow2 1M"), 0);
    let line = f.emu("convert -O raw evil.qcow2 out", 1);
    assert!(line.contains("not in the folder of the image that names it"), "{line}");
    f.emu("convert --backing-files any -O raw evil.qcow2 out", 0);
    std::os::unix::fs::symlink(&victim, f.0.join("link")).unwrap();
    f.emu("create -q -u -f qcow2 -b link -F raw evil.qcow2 1M", 0);
    f.emu("convert -O raw evil.qcow2 out", 1);
    for name in ["nbd://localhost/x", "/dev/null", "json:{}", "../outside"] {
        f.emu(&format!("create -q -u -f qcow2 -b {name} -F raw evil.qcow2 1M"), 0);
        let line = f.emu("convert -O raw evil.qcow2 out", 1);
        assert!(line.contains("Could not open backing file"), "{line}");
    }
    f.emu("create -q -f qcow2 -b below/base.raw -F raw good.qcow2", 0);
    f.emu("convert -O raw good.qcow2 out", 0);
    // An image in the chain whose format nobody named, and that names others.
    f.emu("create -q -f qcow2 -b good.qcow2 -F qcow2 -u top.qcow2 1M", 0);
    f.emu("convert -O raw top.qcow2 out", 0);
    f.emu("create -q -f qcow2 -u -b good.qcow2 top.qcow2 1M", 0);
    let line = f.emu("convert -O raw top.qcow2 out", 1);
    assert!(line.contains("its format is not named"), "{line}");
}

/// What a command that opens what lies below, too, says to an image whose backing image, or extent, leads elsewhere; others need it not.
#[test]
fn no_command_and_no_drive_follows_an_image_out_of_its_folder() {
    let f = Folder::new("every");
    let secret = Folder::new("every-secret");
    let content = secret.raw("secret", 1, 1 << 20);
    let victim = secret.0.join("secret").display().to_string();
    f.raw("base.raw", 1, 1 << 20);
    f.emu(&format!("create -q -u -f qcow2 -b {victim} -F raw evil.qcow2 1M"), 0);
    f.emu("create -q -u -f qcow2 -b evil.qcow2 -F qcow2 top.qcow2 1M", 0);
    std::os::unix::fs::symlink(&victim, f.0.join("link")).unwrap();
    for (name, file) in [("absolute", victim.as_str()), ("parent", "../every-secret/secret"), ("link", "link")] {
        let text = format!("# Disk DescriptorFile\nversion=1\nparentCID=ffffffff\nRW 2048 FLAT \"{file}\" 0\n");
        fs::write(f.0.join(format!("{name}.vmdk")), text).unwrap();
    }
    for image in ["evil.qcow2", "top.qcow2", "absolute.vmdk", "parent.vmdk", "link.vmdk"] {
        let qcow2 = image.ends_with("qcow2");
        let is_refused =
            |text: &str| text.contains("not in the folder of the image") || text.contains("not in the image's folder");
        for line in [
            "convert -O raw IMAGE out",
            "compare IMAGE base.raw",
            "compare base.raw IMAGE",
            "map IMAGE",
            "info --backing-chain IMAGE",
            "commit -q IMAGE",
            "rebase -q -b base.raw -F raw IMAGE",
            "create -q -f qcow2 -b IMAGE -F FORMAT new.qcow2",
            "resize -q IMAGE 2M",
            "snapshot -c name IMAGE",
            "check IMAGE",
            "info IMAGE",
        ] {
            let format = if qcow2 { "qcow2" } else { "vmdk" };
            let output = f.run("emu", &line.replace("IMAGE", image).replace("FORMAT", format));
            let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            // These have nothing to do with what lies below.
            let alone = ["resize", "snapshot", "check", "info I"].iter().any(|command| line.starts_with(command));
            match output.status.success() {
                true => assert!(qcow2 && alone, "{line} {image}"),
                false => assert!(is_refused(&complaint), "{line} {image}: {complaint}"),
            }
        }
        for drive in ["if=ide", "if=virtio", "if=floppy", "media=cdrom", "if=virtio,snapshot=on", "if=none,id=d"] {
            let drive = format!("file={image},{drive}");
            let mut command = Command::new(env!("CARGO_BIN_EXE_emu"));
            command.args(["-m", "16", "-display", "none", "-drive", &drive]).current_dir(&f.0);
            let output = command.stdin(std::process::Stdio::null()).output().unwrap();
            let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.code() == Some(1) && is_refused(&complaint), "{drive}: {complaint}");
        }
    }
    assert!(secret.read("secret") == content);
}

#[test]
fn mistakes_are_one_line() {
    let f = Folder::new("mistakes");
    f.raw("a", 1, 4096);
    for (line, part) in [
        ("create -f qcow2 x", "needs a size"),
        ("create -f qcow9 x 1M", "Unknown file format 'qcow9'"),
        ("create -f qcow2 -o color=red x 1M", "Invalid parameter 'color'"),
        ("create -f qcow2 -o cluster_size=1000 x 1M", "Cluster size must be a power of two"),
        ("create -f qcow2 -b missing -F raw x", "Could not open"),
        ("create -f qcow2 -b a x", "without backing format"),
        ("create -f qcow2 x 1Q", "Invalid image size"),
        ("info missing", "Could not open 'missing'"),
        ("info -f qcow2 a", "not in qcow2 format"),
        ("frobnicate", "emu img --help"),
        ("resize -f raw a -1M", "must be positive"),
        ("convert -O raw nbd+unix:///x?socket=/missing out", "Failed to connect to '/missing'"),
    ] {
        let text = f.emu(line, 1);
        assert!(text.contains(part), "{line}: {text}");
    }
}
