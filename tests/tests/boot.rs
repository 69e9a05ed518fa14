//! Boots guests and talks to their serial consoles. Each case is a data file in tests/boot; `emu_tests::boot_case` explains them.
//!
//! `EMU_TEST_MACHINE=qemu` runs the same cases on QEMU, which shows whether a surprise is the guest's own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use emu_tests::boot_case::BootCase;
use emu_tests::guest::{Guest, Machine};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("boot")
}

fn run(name: &str) -> Vec<u8> {
    let machine = Machine::under_test().unwrap_or_else(|error| panic!("{error}"));
    BootCase::read(&folder().join(name).with_extension("case"))
        .and_then(|case| case.run(&machine, &folder()))
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// One test function per file, so that the runner shows, selects and parallelises them; a test sees that none is forgotten.
macro_rules! boot_cases {
    ($($name:ident)*) => {
        $(#[test] fn $name() { run(stringify!($name)); })*

        #[test]
        fn boot_case_files_all_have_a_test() {
            let mut files: Vec<String> = std::fs::read_dir(folder())
                .expect("the folder is part of the source")
                .map(|entry| entry.expect("readable").path())
                .filter(|path| path.extension().is_some_and(|extension| extension == "case"))
                .map(|path| path.file_stem().expect("has an extension").to_string_lossy().into_owned())
                .collect();
            files.sort();
            assert_eq!(files, [$(stringify!($name)),*]);
        }
    };
}

boot_cases! {
    amd64_debug_exit
    amd64_installer
    amd64_shell
    i386_debug_exit
    i386_installer
    i386_shell
}

/// User and system time that a process has used, in clock ticks of 1/100 s: fields 14 and 15 of /proc/PID/stat (proc(5)).
#[cfg(target_os = "linux")]
fn ticks_used(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("the process runs");
    let after_name = stat.rsplit_once(')').expect("the name is in parentheses").1;
    after_name.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum()
}

#[cfg(target_os = "linux")]
#[test]
fn idle_guest_uses_less_than_3_percent_of_a_core() {
    let machine = Machine::under_test().unwrap_or_else(|error| panic!("{error}"));
    let case = BootCase::read(&folder().join("amd64_shell.case")).expect("the case is correct");
    let mut command = case.command(&machine).unwrap_or_else(|error| panic!("{error}"));
    let mut guest = Guest::start(&mut command, case.deadline).unwrap_or_else(|error| panic!("{error}"));
    guest.expect("emu# ").unwrap_or_else(|error| panic!("{error}"));
    // The kernel still works on this and that for a moment.
    std::thread::sleep(Duration::from_secs(5));
    let before = ticks_used(guest.process_id());
    std::thread::sleep(Duration::from_secs(10));
    let used = ticks_used(guest.process_id()) - before;
    assert!(used < 30, "{used} ticks of 10 ms within 10 s");
}
