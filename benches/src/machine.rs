//! The machines that run the benchmark, and one run of it on one of them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use emu_tests::guest::{self, Guest};

use crate::program::{Arch, Built};

/// The kernel must not print between the program's lines, and must end the machine if the program dies.
const KERNEL_OPTIONS: &str = "console=ttyS0,115200 loglevel=0 panic=-1";

/// Where Debian's packages isolinux and syslinux-common put the boot loader of the CD that Bochs boots.
const ISOLINUX: [&str; 2] = ["/usr/lib/ISOLINUX/isolinux.bin", "/usr/lib/syslinux/modules/bios/ldlinux.c32"];

/// No machine is that slow; a guest that hangs is given up.
const LIMIT: Duration = Duration::from_secs(900);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    Emu,
    Qemu,
    Bochs,
    /// The program on the host's own processor and kernel.
    Native,
}

impl Machine {
    pub const ALL: [Self; 4] = [Self::Emu, Self::Qemu, Self::Bochs, Self::Native];

    pub fn name(self) -> &'static str {
        match self {
            Self::Emu => "emu",
            Self::Qemu => "qemu",
            Self::Bochs => "bochs",
            Self::Native => "native",
        }
    }
}

/// One benchmark's result in one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// `group/name`.
    pub name: String,
    pub duration: Duration,
    pub checksum: String,
}

/// What one run of the program told.
#[derive(Clone, Debug)]
pub struct Run {
    /// From the start of the process to the program's first line.
    pub boot: Duration,
    pub timings: Vec<Timing>,
    /// The largest resident set of the process up to the program's last line; 0 where the host does not tell.
    pub peak_rss_kib: u64,
}

/// Commands that run the benchmark, ready to be started again and again.
pub struct Setup {
    arch: Arch,
    built: Built,
    kernel: PathBuf,
    folder: PathBuf,
    emu: Vec<String>,
    only: Vec<String>,
}

impl Setup {
    /// `emu` is the emulator's binary, followed by more options for it; `only` are the beginnings of the names of the wanted
    /// benchmarks, all if empty.
    pub fn new(arch: Arch, built: Built, folder: &Path, emu: Vec<String>, only: Vec<String>) -> Result<Self, String> {
        let kernel = guest::cached(arch.name(), "linux").map_err(|error| error.to_string())?;
        Ok(Self { arch, built, kernel, folder: folder.to_owned(), emu, only })
    }

    /// Makes what `machine` needs besides the program. An error says why the machine cannot take part.
    pub fn prepare(&self, machine: Machine) -> Result<(), String> {
        match machine {
            Machine::Emu => Path::new(&self.emu[0])
                .is_file()
                .then_some(())
                .ok_or_else(|| format!("no {}: run `cargo build --release -p emu-frontend`", self.emu[0])),
            Machine::Qemu => installed("qemu-system-x86_64", "--version"),
            Machine::Bochs => {
                installed("bochs", "--help")?;
                self.make_cd()
            }
            Machine::Native if cfg!(all(target_arch = "x86_64", target_os = "linux")) => Ok(()),
            Machine::Native => Err("the host is not x86-64 Linux".to_owned()),
        }
    }

    pub fn run(&self, machine: Machine) -> Result<Run, String> {
        let (mut command, first_input) = self.command(machine);
        let started = Instant::now();
        let mut guest = Guest::start(&mut command, LIMIT).map_err(|error| error.to_string())?;
        if let Some(input) = first_input {
            guest.send_line(input).map_err(|error| error.to_string())?;
        }
        converse(&mut guest, started).map_err(|error| format!("{}: {error}", machine.name()))
    }

    fn kernel_options(&self) -> String {
        if self.only.is_empty() {
            return KERNEL_OPTIONS.to_owned();
        }
        // The kernel hands what follows "--" to process 1.
        format!("{KERNEL_OPTIONS} -- {}", self.only.join(" "))
    }

    /// The command, and the line that it has to be told before it starts.
    fn command(&self, machine: Machine) -> (Command, Option<&'static str>) {
        let boot = |mut command: Command| {
            command.args(["-m", "512", "-nographic", "-no-reboot", "-append", &self.kernel_options()]);
            command.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(&self.built.initramfs);
            (command, None)
        };
        match machine {
            Machine::Emu => {
                let mut command = Command::new(&self.emu[0]);
                command.args(&self.emu[1..]);
                boot(command)
            }
            Machine::Qemu => {
                let mut command = Command::new("qemu-system-x86_64");
                command.args(["-accel", "tcg", "-cpu", "max", "-nic", "none"]);
                boot(command)
            }
            Machine::Bochs => {
                let mut command = Command::new("bochs");
                command.arg("-q").arg("-f").arg(self.bochs_configuration());
                // Debian's Bochs has its debugger built in, which waits for "continue".
                (command, Some("c"))
            }
            Machine::Native => {
                let mut command = Command::new(&self.built.program);
                command.args(&self.only);
                (command, None)
            }
        }
    }

    fn bochs_configuration(&self) -> PathBuf {
        self.folder.join(format!("bochsrc-{}", self.arch.name()))
    }

    /// Bochs cannot load a kernel itself: makes a CD with ISOLINUX that does, and the configuration to boot it.
    fn make_cd(&self) -> Result<(), String> {
        let context = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
        let root = self.folder.join(format!("cd-{}", self.arch.name()));
        std::fs::create_dir_all(&root).map_err(|error| context(&root, error))?;
        let [loader, module] = ISOLINUX.map(Path::new);
        if !loader.is_file() || !module.is_file() {
            return Err(format!("no {}: install isolinux and syslinux-common", loader.display()));
        }
        let files = [
            (loader, "isolinux.bin"),
            (module, "ldlinux.c32"),
            (self.kernel.as_path(), "linux"),
            (self.built.initramfs.as_path(), "initrd"),
        ];
        for (from, name) in files {
            std::fs::copy(from, root.join(name)).map_err(|error| context(from, error))?;
        }
        let menu = format!(
            "default bench\nprompt 0\nlabel bench\n  kernel /linux\n  append initrd=/initrd {}\n",
            self.kernel_options()
        );
        std::fs::write(root.join("isolinux.cfg"), menu).map_err(|error| context(&root, error))?;

        let image = root.with_extension("iso");
        let output = Command::new("xorriso")
            .args(["-as", "mkisofs", "-quiet", "-b", "isolinux.bin", "-c", "boot.cat", "-no-emul-boot"])
            .args(["-boot-load-size", "4", "-boot-info-table", "-o"])
            .args([&image, &root])
            .output()
            .map_err(|error| format!("xorriso, which makes the CD that Bochs boots: {error}"))?;
        if !output.status.success() {
            return Err(format!("xorriso: {}", String::from_utf8_lossy(&output.stderr)));
        }

        // No time is lost on synchronisation with the host, on a picture that nobody sees, or on a log of unknown MSRs.
        let configuration = format!(
            "config_interface: textconfig\n\
             display_library: rfb, options=\"timeout=0\"\n\
             plugin_ctrl: unmapped=0, speaker=0, biosdev=1, parallel=0, extfpuirq=1, gameport=0, iodebug=0\n\
             sound: waveoutdrv=dummy, waveout=none\n\
             megs: 512\n\
             romimage: file=/usr/share/bochs/BIOS-bochs-latest\n\
             vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest\n\
             cpu: model=corei7_sandy_bridge_2600k, ips=50000000, reset_on_triple_fault=0\n\
             clock: sync=none, time0=utc\n\
             boot: cdrom\n\
             ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14\n\
             ata0-master: type=cdrom, path={}, status=inserted\n\
             com1: enabled=1, mode=file, dev=/dev/stdout\n\
             log: /dev/null\n\
             panic: action=fatal\nerror: action=ignore\ninfo: action=ignore\ndebug: action=ignore\n",
            image.display()
        );
        let file = self.bochs_configuration();
        std::fs::write(&file, configuration).map_err(|error| context(&file, error))
    }
}

fn installed(program: &str, question: &str) -> Result<(), String> {
    Command::new(program).arg(question).output().map(drop).map_err(|error| format!("{program}: {error}"))
}

/// Follows the lines that benches/guest/main.c prints.
fn converse(guest: &mut Guest, started: Instant) -> Result<Run, guest::GuestError> {
    guest.expect("B:begin")?;
    let mut run = Run { boot: guest.arrival() - started, timings: Vec::new(), peak_rss_kib: 0 };
    let mut begun: Option<(String, Instant)> = None;
    loop {
        // Bochs gives each character the time that it takes on a wire. So what counts is the last character of the line before
        // a benchmark, and the first of the line behind it.
        guest.expect("B:")?;
        let first = guest.arrival();
        let line = guest.expect_line()?;
        let last = guest.arrival();
        let mut words = line.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some("done"), None, None) => break,
            (Some(name), Some("start"), None) => begun = Some((name.to_owned(), last)),
            (Some(name), Some("end"), Some(checksum)) => match begun.take() {
                Some((begun, start)) if begun == name => {
                    run.timings.push(Timing { name: begun, duration: first - start, checksum: checksum.to_owned() });
                }
                _ => return Err(guest::GuestError::new(format!("the end of {name} came without its start"))),
            },
            _ => return Err(guest::GuestError::new(format!("a line that the program does not print: B:{line}"))),
        }
    }
    run.peak_rss_kib = peak_rss_kib(guest.process_id());
    Ok(run)
}

/// `VmHWM` of proc(5).
fn peak_rss_kib(process: u32) -> u64 {
    std::fs::read_to_string(format!("/proc/{process}/status"))
        .ok()
        .and_then(|status| {
            let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
            line.split_whitespace().nth(1)?.parse().ok()
        })
        .unwrap_or(0)
}
