//! Boots guests and talks to their serial consoles. Each case is a data file in tests/boot; `emu_tests::boot_case` explains them.
//!
//! `EMU_TEST_MACHINE=qemu` runs the same cases on QEMU, which shows whether a surprise is the guest's own.

use std::path::{Path, PathBuf};

use emu_tests::boot_case::BootCase;
use emu_tests::guest::Machine;

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
    amd64_installer
    amd64_shell
    i386_installer
    i386_shell
}
