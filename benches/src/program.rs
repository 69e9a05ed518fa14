//! The in-guest benchmark as a file that a machine can boot: compiles benches/guest with the host's gcc into an initramfs.

use std::path::{Path, PathBuf};
use std::process::Command;

use emu_tests::initramfs;

/// Compiler options that fix what is measured: no C library, no instructions beyond SSE2, loops as they are written.
const OPTIONS: &[&str] = &[
    "-std=gnu17",
    "-O2",
    "-Wall",
    "-Wextra",
    "-ffreestanding",
    // The compiler's SSE headers would ask for the C library's stdlib.h, which is not there for every architecture.
    "-D_MM_MALLOC_H_INCLUDED",
    "-nostdlib",
    "-static",
    "-fno-pie",
    "-no-pie",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fno-tree-vectorize",
    "-fno-tree-loop-distribute-patterns",
    "-fno-strict-aliasing",
    "-ffp-contract=off",
];

/// The architecture of the guest's kernel and program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    Amd64,
    I386,
}

impl Arch {
    /// Debian's name of the architecture, which is also that of its folder in scripts/guests.sh's cache.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::I386 => "i386",
        }
    }

    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Amd64 => &["-m64", "-march=x86-64"],
            Self::I386 => &["-m32", "-march=pentium4", "-msse2", "-mfpmath=sse"],
        }
    }
}

/// What [`build`] made.
pub struct Built {
    /// The static program, which also runs natively on an x86-64 Linux host.
    pub program: PathBuf,
    /// An initramfs whose process 1 it is.
    pub initramfs: PathBuf,
}

/// Compiles the program and packs it, both into `folder`.
pub fn build(arch: Arch, folder: &Path) -> Result<Built, String> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&sources)
        .map_err(|error| format!("{}: {error}", sources.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "c"))
        .collect();
    files.sort();

    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let program = folder.join(format!("bench-{}", arch.name()));
    let output = Command::new("gcc")
        .args(OPTIONS)
        .args(arch.options())
        .arg("-o")
        .arg(&program)
        .args(&files)
        .output()
        .map_err(|error| format!("gcc, which compiles the guest's program: {error}"))?;
    if !output.status.success() {
        return Err(format!("gcc: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)));
    }

    let initramfs = program.with_extension("cpio");
    std::fs::read(&program)
        .and_then(|bytes| initramfs::single_program(&bytes))
        .and_then(|archive| std::fs::write(&initramfs, archive))
        .map_err(|error| format!("{}: {error}", initramfs.display()))?;
    Ok(Built { program, initramfs })
}
