//! Deterministic time: a boot under a clock that counts instructions is the same every time, to the instruction and to the byte.
//!
//! The machines run in this process, so that their instruction counts can be compared.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use emu_core::clock::ClockMode;
use emu_core::cpu::model::CpuModel;
use emu_devices::board::kernel::{Kernel, KernelOptions};
use emu_devices::board::machine::{MachineOptions, Outcome};
use emu_devices::board::pc::{Pc, PcBoot, PcConfig};
use emu_devices::char::MemoryBackend;
use emu_devices::rtc::StartTime;
use emu_jit::Jit;
use emu_tests::guest::cached;

/// A boot takes about ten seconds; this is for a machine that is busy with other things.
const LIMIT: Duration = Duration::from_secs(300);

/// What must not differ between two boots.
#[derive(PartialEq, Eq)]
struct Trace {
    outcome: Outcome,
    instructions: u64,
    serial: Vec<u8>,
}

fn boot(arch: &str, compiles: bool) -> Trace {
    let file = |name| {
        let path = cached(arch, name).unwrap_or_else(|error| panic!("{error}"));
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let kernel = Kernel::parse(&file("linux")).expect("Debian's kernel is a kernel");
    let options = KernelOptions {
        command_line:
            br#"console=ttyS0 emu_run="cat /proc/interrupts /proc/uptime; date; hwclock -r -u; sleep 2; date""#.to_vec(),
        initrd: file("busybox.cpio"),
        ..KernelOptions::default()
    };
    let serial = MemoryBackend::new();
    let pc = Pc::new(PcConfig {
        ram: 256 << 20,
        model: Arc::new(CpuModel::max()),
        clock: ClockMode::Icount { shift: 0 },
        date: StartTime { seconds: 1_700_000_000, nanos: 0 },
        serials: [Some(Box::new(serial.clone())), None, None, None],
        parallel: None,
        debugcon: None,
        debug_exit: None,
        testdev: false,
        audio: Default::default(),
        floppies: Default::default(),
        vga: None,
        ide: Default::default(),
        boot: PcBoot::Kernel(Box::new(kernel), options),
        firmware: Default::default(),
        // A guest that waits is not waited for.
        options: MachineOptions { no_reboot: true, icount_sleep: false, ..MachineOptions::default() },
    })
    .expect("256 MiB are possible");

    let mut machine = pc.machine;
    if compiles {
        let jit = Jit::new(emu_jit::CAPACITY).unwrap_or_else(|problem| panic!("{problem}"));
        machine.processor().set_compiler(Some(Box::new(jit)));
    }
    let control = machine.control();
    let (done, waiting) = channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if waiting.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
            control.post(|machine| machine.quit());
        }
    });
    let outcome = machine.run().expect("the kernel was loaded once already");
    drop(done);
    watchdog.join().expect("it does not panic");
    assert_eq!(machine.processor().stats.region_instructions > 100_000_000, compiles, "hot code is compiled");
    let instructions = machine.bus().clock(|clock| clock.instructions());
    Trace { outcome, instructions, serial: serial.take_output() }
}

fn check(arch: &'static str) {
    let other = std::thread::spawn(move || boot(arch, false));
    let one = boot(arch, false);
    let other = other.join().expect("the second boot");
    let text = String::from_utf8_lossy(&one.serial);
    assert_eq!(one.outcome, Outcome::PowerOff, "{text}");
    assert!(text.contains("emu-guest: power off"), "{text}");
    // When its worker has a region ready depends on the host; what the guest sees must not.
    for (name, other) in [("interpreted", other), ("compiled", boot(arch, true))] {
        for (first, second) in text.lines().zip(String::from_utf8_lossy(&other.serial).lines()) {
            assert_eq!(first, second, "the first line that differs when {name}");
        }
        assert_eq!(one.instructions, other.instructions, "{name}");
        assert!(one == other, "{name}");
    }
}

#[test]
fn icount_amd64_boots_are_equal_to_the_instruction() {
    check("amd64");
}

#[test]
fn icount_i386_boots_are_equal_to_the_instruction() {
    check("i386");
}
