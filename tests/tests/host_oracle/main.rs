//! The host's own processor as the judge: random instructions from the whole table, in random states, run natively in
//! a child process and here, and everything they leave behind is compared: general registers, flags, XMM, MXCSR, x87,
//! memory, the address to go on at, and the fault with its error code and address. Instructions are those of 64-bit code
//! and of 32-bit code (in compatibility mode).
//!
//! ```text
//!  ORACLE_CASES=10000000   how many cases; each instruction runs in 16 states
//!  ORACLE_SEED=123         repeats a run
//!  ORACLE_ONLY=456         only instruction 456 of that run, as a failure names it
//!  ORACLE_CODE=Imul        only instructions whose code contains this
//! ```
//! Flags that iced-x86 lists as undefined are not compared. What else is let pass, and why, is in [`compare`]. The whole
//! table is gone through again and again, each time in another way ([`SWEEPS`]), and at last as often as it takes until
//! compiled code has executed every instruction of it both ways, but for what is [`left_to_the_interpreter`].
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(unsafe_code)]

mod compare;
mod generate;
mod guest;
mod native;
mod surround;

use fastrand::Rng;
use iced_x86::Code;
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use surround::Surroundings;

const CODE: u64 = 0x1000_0000;
/// Bytes of a slot, which holds an instruction and what is around it.
const SLOT: u64 = 512;
const SLOTS: u64 = 512;
const CODE_BYTES: usize = (SLOTS * SLOT) as usize;
/// Where in its slot the instruction lies.
const LEAD: u64 = 128;
/// Where jumps go, from there.
const TAKEN: u64 = 96;
const DATA: u64 = 0x2000_0000;
const DATA_WRITABLE: usize = 0x2000;
const DATA_BYTES: usize = 0x3000;
/// Data of the code around the instruction, which only the guest has. No entry of the TLB serves for other pages too.
const SCRATCH: u64 = DATA + 0x10_5000;
const GS_BASE: u64 = 0x1234_5678;

const STATES: u64 = 16;
const DEFAULT_CASES: u64 = 500_000;
/// Failures that are printed in full.
const PRINTED: usize = 40;

/// A way to execute instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// In threaded code, where specialised handlers are, and one by one, alternately.
    Interpreted,
    /// In a region that does nothing else.
    Region,
    /// In the midst of a region of several blocks.
    Blocks,
}

/// How the table is gone through, again and again.
const SWEEPS: [Way; 6] =
    [Way::Blocks, Way::Interpreted, Way::Region, Way::Interpreted, Way::Interpreted, Way::Interpreted];
/// How often at most, on top of what was asked for, for instructions that compiled code has not executed yet.
const MORE_SWEEPS: u64 = 30 * SWEEPS.len() as u64;

/// Instructions that compiled code executes where they may be executed, which is not in user mode: it leaves the fault,
/// and so all that is seen of them here, to the interpreter.
fn left_to_the_interpreter(code: Code) -> bool {
    matches!(code, Code::Cli | Code::Sti | Code::Stac | Code::Clac)
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn host_processor_agrees_on_random_instructions() {
    let seed = setting("ORACLE_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    let cases = setting("ORACLE_CASES").unwrap_or(DEFAULT_CASES);
    println!("ORACLE_SEED={seed} ORACLE_CASES={cases}");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_compares_cases", "--nocapture", "--test-threads=1"])
        .env("ORACLE_CHILD", "1")
        .env("ORACLE_SEED", seed.to_string())
        .env("ORACLE_CASES", cases.to_string())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60 + cases / 5_000);
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("the child did not finish in time");
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    assert!(status.success(), "ORACLE_SEED={seed}: the child ended with {status}");
}

#[test]
fn every_compared_code_has_an_encoding() {
    let mut rng = Rng::with_seed(1);
    let missing: Vec<_> = [32, 64]
        .iter()
        .flat_map(|bits| generate::codes(*bits).into_iter().map(move |code| (*bits, code)))
        .filter(|(bits, code)| generate::encode(*code, *bits, CODE, &mut rng).is_none())
        .collect();
    assert!(missing.is_empty(), "no encoding found for {missing:?}");
}

/// The child's side; nothing on its own.
#[test]
fn child_compares_cases() {
    if std::env::var_os("ORACLE_CHILD").is_none() {
        return;
    }
    let seed = setting("ORACLE_SEED").unwrap_or(0);
    let instructions = setting("ORACLE_CASES").unwrap_or(DEFAULT_CASES).div_ceil(STATES);
    let only = setting("ORACLE_ONLY");
    let filter = std::env::var("ORACLE_CODE").unwrap_or_default();
    let named = |code: &Code| format!("{code:?}").contains(&filter);
    let codes: Vec<(u32, Code)> = [64, 32]
        .into_iter()
        .flat_map(|bits| generate::codes(bits).into_iter().filter(named).map(move |code| (bits, code)))
        .collect();
    assert!(!codes.is_empty(), "no instruction is called {filter}");

    let mut rng = Rng::with_seed(seed);
    let pool: Vec<_> = (0..256).map(|_| generate::fx(&mut rng)).collect();
    let mut base = vec![0; DATA_BYTES];
    base.as_chunks_mut::<16>().0.iter_mut().for_each(|chunk| *chunk = generate::vector(&mut rng));

    let mut native = native::Native::new(GS_BASE);
    let mut guests = [false, true].map(|compiles| guest::Guest::new(native.gs_base, compiles));
    native.fill(&base);
    guests.iter().for_each(|guest| guest.write_data(0, &base));

    let start = Instant::now();
    let (mut done, mut faults, mut skipped) = (0u64, 0u64, 0u64);
    let mut failures: BTreeMap<String, usize> = BTreeMap::new();
    let mut guest_data = vec![0; DATA_WRITABLE];
    // In how many states compiled code has executed each instruction in each way.
    let mut proof: BTreeMap<(Way, usize), u64> = BTreeMap::new();
    let compiled = codes.iter().filter(|(_, code)| !left_to_the_interpreter(*code)).count();
    let mut open = if only.is_some() { 0 } else { 2 * compiled };
    for n in 0..instructions + MORE_SWEEPS * codes.len() as u64 {
        let way = SWEEPS[n as usize / codes.len() % SWEEPS.len()];
        let number = n as usize % codes.len();
        let more = n >= instructions;
        if more && open == 0 && only.is_none() {
            break;
        }
        if n % SLOTS == 0 {
            guests.iter_mut().for_each(guest::Guest::restart);
        }
        let settled =
            way == Way::Interpreted || proof.contains_key(&(way, number)) || left_to_the_interpreter(codes[number].1);
        if only.map_or(more && settled, |only| only != n) {
            continue;
        }
        let mut rng = Rng::with_seed(seed ^ (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let guest = &mut guests[usize::from(way != Way::Interpreted)];
        let (bits, code) = codes[number];
        let Some(case) = generate::encode(code, bits, generate::slot(n), &mut rng) else {
            skipped += 1;
            continue;
        };
        let around = match way {
            Way::Blocks => Surroundings::blocks(bits, &mut rng),
            _ => Surroundings::nothing(bits),
        };
        native.place(case.insn.ip(), &case.bytes, case.bits);
        guest.place(case.insn.ip(), &case.bytes, &around);
        let len = case.bytes.len() as u64;
        for round in 0..STATES {
            let (mut input, patches) = generate::state(&case, &pool, GS_BASE, &mut rng);
            let mut scratch = around.prepare(&mut input, &mut rng);
            for (offset, bytes) in &patches {
                native.data()[*offset..][..16].copy_from_slice(bytes);
                guest.write_data(*offset, bytes);
            }
            let (expected, expected_fault) = native.execute(&input, len, case.bits);
            let mut differences = Vec::new();
            let (actual, actual_fault) = if way == Way::Interpreted {
                guest.execute(&input, len, case.bits, round % 2 == 1)
            } else {
                let outcome = guest.execute_region(&input, len, case.bits, &around, &mut scratch);
                if outcome.compiled {
                    let states = proof.entry((way, number)).or_default();
                    open = open.saturating_sub(usize::from(*states == 0));
                    *states += 1;
                }
                if outcome.fault == native::NO_FAULT {
                    around.look_back(outcome.state.flags, &scratch, &mut differences);
                }
                (outcome.state, outcome.fault)
            };
            guest.read_data(0, &mut guest_data);
            done += 1;
            faults += u64::from(expected_fault.vector != native::NO_FAULT.vector);
            if !compare::pointless(&case.insn, &input) {
                let (expected, actual) = ((&expected, expected_fault), (&actual, actual_fault));
                compare::compare(&case.insn, &input, expected, actual, &mut differences);
                compare::memory(&case.insn, expected_fault, native.data(), &guest_data, &mut differences);
            }
            if !differences.is_empty() {
                let count = failures.entry(format!("{code:?}")).or_default();
                *count += 1;
                if *count == 1 && failures.len() <= PRINTED {
                    compare::explain(n, round, way, &case, &input, expected_fault, &differences);
                }
            }
            if native.data() != &base[..DATA_WRITABLE] {
                native.data().copy_from_slice(&base[..DATA_WRITABLE]);
            }
            if guest_data != base[..DATA_WRITABLE] {
                guest.write_data(0, &base[..DATA_WRITABLE]);
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{done} cases of {} codes, {faults} faults, {skipped} instructions not encoded, {seconds:.1} s, {:.0} cases/s",
        codes.len(),
        done as f64 / seconds
    );
    for (code, count) in &failures {
        println!("  {code}: {count}");
    }
    println!("ORACLE_SEED={seed}: {} codes differ from the host", failures.len());
    let mut unproven = 0;
    for way in [Way::Region, Way::Blocks] {
        let states: u64 = proof.range((way, 0)..=(way, codes.len())).map(|(_, states)| states).sum();
        println!("{way:?}: compiled code executed the instruction in {states} states");
        for (number, (bits, code)) in codes.iter().enumerate().filter(|_| only.is_none()) {
            let expected = !left_to_the_interpreter(*code);
            if proof.contains_key(&(way, number)) != expected {
                println!("{way:?}: {code:?} of {bits} bits: by compiled code: {}", !expected);
                unproven += 1;
            }
        }
    }
    // Not a panic, whose report would need more system calls than the filter allows.
    std::process::exit(i32::from(!failures.is_empty() || unproven != 0));
}
