//! Runs functions of the in-guest benchmark on a bare processor, without an operating system: first interpreted, then
//! compiled, and prints how the two compare. What is compiled is compiled before the time begins.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use emu_benches::program::{self, Arch};
use emu_core::bus::Bus;
use emu_core::clock::{Clock, ClockMode};
use emu_core::cpu::control::{CR0_MP, CR0_NE, CR4_OSFXSR, CR4_OSXMMEXCPT};
use emu_core::cpu::model::CpuModel;
use emu_core::cpu::regs::RSP;
use emu_core::exec::{RunExit, Vcpu};
use emu_core::irq::CpuPins;
use emu_core::mem::GuestMemory;
use emu_core::softfloat::x87;
use emu_devices::board::boot_state::BootState;
use emu_devices::board::elf::Elf;
use emu_devices::board::machine::Processor;
use emu_jit::Immediate;

const RAM: u64 = 64 << 20;
/// Above the program's last byte.
const STACK: u64 = RAM - 4096;
/// Where functions return to: an endless loop.
const RETURN: u64 = RAM - 4096;
/// Executions of a block before it is compiled.
const THRESHOLD: u32 = 50;
/// The functions that need no system call.
const KERNELS: &[&str] = &[
    "sieve",
    "crc32",
    "quicksort",
    "sha256",
    "bytecode_vm",
    "fib",
    "divide",
    "random_branches",
    "binary_search",
    "tokenizer",
    "function_pointers",
    "steady_pointer",
    "threaded_code",
    "returns",
    "mandelbrot",
    "matrix",
    "nbody",
    "packed_single",
    "packed_double",
    "arithmetic",
    "divide_sqrt",
    "transcendental",
    "convert_extended",
    "compare",
    "copy_sse",
    "copy_words",
    "chase_near",
    "chase_far",
    "stride_page",
    "stride_line",
];

#[derive(Parser)]
#[command(about = "Times functions of the in-guest benchmark, interpreted and compiled, without an operating system")]
struct Options {
    /// Do not interpret, only compile.
    #[arg(long)]
    compiled: bool,
    /// Functions; all if none is named.
    only: Vec<String>,
}

struct Program {
    bytes: Vec<u8>,
    symbols: Vec<(String, u64)>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kernels: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("the workspace has no folder")?;
    let folder = std::env::var_os("EMU_CACHE").map_or_else(|| root.join("cache"), PathBuf::from).join("bench");
    let built = program::build(Arch::Amd64, &folder)?;
    let program = read(&built.program)?;
    println!("{:<20}{:>14}{:>14}{:>14}{:>9}", "", "instructions", "interpreted", "compiled", "ratio");
    for name in KERNELS.iter().filter(|name| options.only.is_empty() || options.only.iter().any(|o| o == *name)) {
        let (count, interpreted) =
            if options.compiled { (0, None) } else { time(&program, name, false).map(|(n, t)| (n, Some(t)))? };
        let (compiled_count, compiled) = time(&program, name, true)?;
        if interpreted.is_some() && count != compiled_count {
            return Err(format!("{name}: {count} instructions interpreted, {compiled_count} compiled"));
        }
        let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
        let ratio =
            interpreted.map_or(String::new(), |time| format!("{:.2}", time.as_secs_f64() / compiled.as_secs_f64()));
        let interpreted = interpreted.map_or(String::new(), ms);
        println!("{name:<20}{compiled_count:>14}{interpreted:>14}{:>14}{ratio:>9}", ms(compiled));
    }
    Ok(())
}

/// Calls the function twice, and times the second call.
fn time(program: &Program, name: &str, compiled: bool) -> Result<(u64, Duration), String> {
    let start =
        program.symbols.iter().find(|(symbol, _)| symbol == name).ok_or_else(|| format!("no function {name}"))?.1;
    let mut cpu = processor(program, start)?;
    if compiled {
        cpu.set_compiler(Some(Box::new(Immediate::new(THRESHOLD)?)));
    }
    let mut last = (0, Duration::ZERO);
    for _ in 0..2 {
        cpu.memory.write(STACK - 8, &RETURN.to_le_bytes());
        cpu.state.regs.set_gpr(RSP, STACK - 8);
        cpu.state.rip = start;
        let begun = processor_time();
        let mut count = 0;
        while cpu.state.activity == emu_core::cpu::Activity::Running {
            match cpu.run(100_000_000) {
                RunExit::Budget | RunExit::Halted => count += cpu.executed(),
                exit => return Err(format!("{name}: {exit:?} at {:#x}", cpu.state.rip)),
            }
        }
        cpu.state.activity = emu_core::cpu::Activity::Running;
        last = (count, processor_time() - begun);
    }
    Ok(last)
}

/// The time that this thread has had: what else the host does counts less than by the clock.
fn processor_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn processor(program: &Program, start: u64) -> Result<Vcpu, String> {
    let memory = GuestMemory::new(RAM, 0).map_err(|error| error.to_string())?;
    let bus =
        Arc::new(Bus::new(Arc::new(memory), Arc::new(CpuPins::default()), Clock::new(ClockMode::Icount { shift: 0 })));
    let mut cpu = Vcpu::new(Arc::new(CpuModel::max()), bus);
    let state = BootState::long(&cpu.memory, start);
    cpu.start(&state);
    let elf = Elf::parse(&program.bytes).map_err(|error| error.to_string())?;
    elf.load(&cpu.memory).map_err(|error| error.to_string())?;
    // HLT
    cpu.memory.write(RETURN, &[0xf4]);
    cpu.state.cr0 |= CR0_MP | CR0_NE;
    cpu.state.cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT;
    // FNINIT.
    (cpu.state.fpu.control, cpu.state.fpu.empty) = (x87::control::INITIAL, 0xff);
    cpu.state.regs.set_gpr(RSP, STACK);
    cpu.mode_changed();
    Ok(cpu)
}

fn read(path: &Path) -> Result<Program, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let output =
        Command::new("nm").arg(path).output().map_err(|error| format!("nm, which lists functions: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let symbols = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = u64::from_str_radix(words.next()?, 16).ok()?;
            Some((words.nth(1)?.to_owned(), address))
        })
        .collect();
    Ok(Program { bytes, symbols })
}
