//! Boots the same kernel and the same benchmark under emu, QEMU and Bochs, in alternation, and prints a table of ratios.
//!
//! The times are the host's, taken when the benchmark's lines arrive on the serial console. Before the first run:
//! `cargo build --release -p emu-frontend` and `scripts/guests.sh`. A machine that is not installed is left out with a notice.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use emu_benches::machine::{Machine, Setup};
use emu_benches::program::{self, Arch};
use emu_benches::report::{self, Results};

#[derive(Parser)]
#[command(about = "Runs the in-guest benchmark under several emulators and compares them")]
struct Options {
    /// The guest's architecture: amd64 or i386.
    #[arg(long, default_value = "amd64", value_parser = parse_arch)]
    arch: Arch,
    /// How often each machine runs.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// The machines (emu, qemu, bochs, native); the others are compared with the first.
    #[arg(long, default_value = "emu,qemu,bochs", value_delimiter = ',', value_parser = parse_machine)]
    machines: Vec<Machine>,
    /// emu's binary and more options for it.
    #[arg(long, num_args = 1.., allow_hyphen_values = true)]
    emu: Vec<String>,
    /// Only benchmarks whose name begins so, as in integer/ or memory/chase.
    only: Vec<String>,
}

fn parse_arch(text: &str) -> Result<Arch, String> {
    [Arch::Amd64, Arch::I386].into_iter().find(|arch| arch.name() == text).ok_or("amd64 and i386 exist".to_owned())
}

fn parse_machine(text: &str) -> Result<Machine, String> {
    Machine::ALL
        .into_iter()
        .find(|machine| machine.name() == text)
        .ok_or("emu, qemu, bochs and native exist".to_owned())
}

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("side-by-side: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut options: Options) -> Result<ExitCode, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("the workspace has no folder")?;
    if let Some(word) = options.only.iter().find(|word| !word.contains('/')) {
        return Err(format!("'{word}' has no slash: give the beginning of a name such as integer/sieve"));
    }
    if options.emu.is_empty() {
        options.emu.push(default_emu()?.display().to_string());
    }
    let folder = std::env::var_os("EMU_CACHE").map_or_else(|| root.join("cache"), PathBuf::from).join("bench");
    let built = program::build(options.arch, &folder)?;
    let setup = Setup::new(options.arch, built, &folder, options.emu, options.only)?;

    let mut results = Vec::new();
    for machine in options.machines {
        match setup.prepare(machine) {
            Ok(()) => results.push(Results { machine, runs: Vec::new() }),
            Err(reason) => eprintln!("side-by-side: without {}: {reason}", machine.name()),
        }
    }
    for round in 1..=options.rounds {
        for result in &mut results {
            let run = setup.run(result.machine)?;
            let total: f64 = run.timings.iter().map(|timing| timing.duration.as_secs_f64()).sum();
            eprintln!(
                "round {round} {:6}: boot {:.1} s, benchmarks {total:.1} s",
                result.machine.name(),
                run.boot.as_secs_f64()
            );
            result.runs.push(run);
        }
    }

    println!("guest: Debian {}, {} rounds\n", options.arch.name(), options.rounds);
    print!("{}", report::table(&results));
    let wrong = report::disagreements(&results);
    for line in &wrong {
        println!("WRONG RESULT {line}");
    }
    Ok(if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The release build in the target folder that this program itself lies in (`target/PROFILE/side-by-side`).
fn default_emu() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let target = own.parent().and_then(Path::parent).ok_or("the program has no folder")?;
    Ok(target.join("release").join("emu"))
}
