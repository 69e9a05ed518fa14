//! Deterministic time: a boot under a clock that counts instructions is the same every time, to the instruction and to the byte.
//!
//! The machines run in this process, so that their instruction counts can be compared.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use emu_core::clock::ClockMode;
use emu_core::cpu::model::CpuModel;
use emu_core::exec::region::Compiler;
use emu_devices::board::kernel::{Kernel, KernelOptions};
use emu_devices::board::machine::{MachineOptions, Outcome};
use emu_devices::board::pc::{Pc, PcBoot, PcConfig};
use emu_devices::char::MemoryBackend;
use emu_devices::rtc::StartTime;
use emu_jit::{Immediate, Jit};
use emu_tests::guest::cached;

/// A boot takes about ten seconds; this is for a machine that is busy with other things.
const LIMIT: Duration = Duration::from_secs(300);

/// Executions of a block before it is compiled under stress: with fewer, compiling takes minutes.
const STRESS: u32 = 200;

/// What must not differ between two boots.
#[derive(PartialEq, Eq)]
struct Trace {
    outcome: Outcome,
    instructions: u64,
    serial: Vec<u8>,
}

/// What executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Engine {
    Interpreted,
    /// Hot code is compiled in the background.
    Compiled,
    /// What is only warm is compiled there and then, and all code is given up again and again for want of room.
    Stressed,
}

impl Engine {
    fn compiler(self) -> Option<Box<dyn Compiler>> {
        let made: Result<Box<dyn Compiler>, String> = match self {
            Engine::Interpreted => return None,
            Engine::Compiled => Jit::new(emu_jit::CAPACITY).map(|jit| Box::new(jit) as _),
            Engine::Stressed => Immediate::stressed(STRESS, 1 << 20).map(|jit| Box::new(jit) as _),
        };
        Some(made.unwrap_or_else(|problem| panic!("{problem}")))
    }
}

fn boot(arch: &str, engine: Engine) -> Trace {
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
        expansion: Default::default(),
        vga: None,
        ide: Default::default(),
        boot: PcBoot::Kernel(Box::new(kernel), options),
        firmware: Default::default(),
        // A guest that waits is not waited for.
        options: MachineOptions { no_reboot: true, icount_sleep: false, ..MachineOptions::default() },
    })
    .expect("256 MiB are possible");

    let mut machine = pc.machine;
    machine.processor().set_compiler(engine.compiler());
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
    let stats = &machine.processor().stats;
    assert_eq!(stats.region_instructions > 100_000_000, engine != Engine::Interpreted, "hot code is compiled");
    assert_eq!(stats.region_evictions > 20, engine == Engine::Stressed, "{} evictions", stats.region_evictions);
    let instructions = machine.bus().clock(|clock| clock.instructions());
    Trace { outcome, instructions, serial: serial.take_output() }
}

fn check(arch: &'static str) {
    let boots = move |engines: [Engine; 2]| engines.map(|engine| (engine, boot(arch, engine)));
    let others = std::thread::spawn(move || boots([Engine::Interpreted, Engine::Compiled]));
    let [(_, one), stressed] = boots([Engine::Interpreted, Engine::Stressed]);
    let others = others.join().expect("the other boots");
    let text = String::from_utf8_lossy(&one.serial);
    assert_eq!(one.outcome, Outcome::PowerOff, "{text}");
    assert!(text.contains("emu-guest: power off"), "{text}");
    // When its worker has a region ready depends on the host; what the guest sees must not.
    for (name, other) in others.into_iter().chain([stressed]) {
        for (first, second) in text.lines().zip(String::from_utf8_lossy(&other.serial).lines()) {
            assert_eq!(first, second, "the first line that differs when {name:?}");
        }
        assert_eq!(one.instructions, other.instructions, "{name:?}");
        assert!(one == other, "{name:?}");
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
