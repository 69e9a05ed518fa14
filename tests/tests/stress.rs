//! SeaBIOS and GRUB, of whose 32-bit code every block is compiled when it has run once, in a cache that is given up again and
//! again, in lockstep with the interpreter: registers are compared all the time, RAM at the end. A difference is traced to
//! an instruction by `emu dev bisect-jit`.
//!
//! Linux under stress is in `boot_icount`.

use emu_tests::guest::{Machine, cached};
use std::process::Command;

/// As far as GRUB's menu.
const INSTRUCTIONS: &str = "150000000";
/// Most code is compiled several times.
const LEAST_REGIONS: u32 = 3000;

#[test]
fn grub_runs_alike_when_everything_is_compiled_at_once() {
    let emu = match Machine::under_test() {
        Ok(Machine::Emu(emu)) => emu,
        Ok(Machine::Qemu) => panic!("emu is what is compared"),
        Err(error) => panic!("{error}"),
    };
    let firmware = |name| cached("firmware", name).unwrap_or_else(|error| panic!("{error}"));
    let output = Command::new(emu)
        .args(["dev", "bisect-jit", "--every", "100000", "--instructions", INSTRUCTIONS])
        .args(["-accel", "jit,stress=on", "-display", "none", "-m", "32", "-boot", "a", "-snapshot", "-bios"])
        .arg(firmware("bios-256k.bin"))
        .arg("-fda")
        .arg(firmware("grub-rescue-floppy.img"))
        .output()
        .expect("emu starts");
    let (found, problem) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let agreed = format!("interpreter and compiled code agree for {INSTRUCTIONS} instructions, ");
    let regions = found.strip_prefix(&agreed).unwrap_or_else(|| panic!("{found}{problem}"));
    let regions: u32 = regions.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default();
    assert!(regions > LEAST_REGIONS, "only {regions} regions were compiled");
}
