//! The in-guest benchmark as a file that a machine can boot: compiles benches/guest with the host's gcc into an initramfs.

use std::path::{Path, PathBuf};
use std::process::Command;

use emu_tests::initramfs::{self, Archive};

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

/// Compiles the benchmark of benches/guest and packs it, both into `folder`.
pub fn build(arch: Arch, folder: &Path) -> Result<Built, String> {
    let program = folder.join(format!("bench-{}", arch.name()));
    compile(arch, &sources("."), &program)?;
    let initramfs = program.with_extension("cpio");
    std::fs::read(&program)
        .and_then(|bytes| initramfs::single_program(&bytes))
        .and_then(|archive| std::fs::write(&initramfs, archive))
        .map_err(|error| format!("{}: {error}", initramfs.display()))?;
    Ok(Built { program, initramfs })
}

/// An initramfs in `folder` that is `base` with the amd64 program of benches/guest/`name` as `bin/name`.
pub fn with_program(base: &Path, name: &str, folder: &Path) -> Result<PathBuf, String> {
    let program = folder.join(name);
    compile(Arch::Amd64, &sources(name), &program)?;
    let packed = program.with_extension("cpio");
    let pack = || {
        let mut archive = Archive::new();
        archive.file(&format!("bin/{name}"), 0o755, &std::fs::read(&program)?)?;
        // The kernel unpacks one archive after the other.
        let mut bytes = std::fs::read(base)?;
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(archive.finish()?);
        std::fs::write(&packed, bytes)
    };
    pack().map_err(|error: std::io::Error| format!("{}: {error}", packed.display()))?;
    Ok(packed)
}

fn sources(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("guest").join(folder)
}

/// Compiles all C files of `sources` into `program`.
fn compile(arch: Arch, sources: &Path, program: &Path) -> Result<(), String> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(sources)
        .map_err(|error| format!("{}: {error}", sources.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "c"))
        .collect();
    files.sort();

    if let Some(folder) = program.parent() {
        std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    let output = Command::new("gcc")
        .args(OPTIONS)
        .args(arch.options())
        .arg("-o")
        .arg(program)
        .args(&files)
        .output()
        .map_err(|error| format!("gcc, which compiles the guest's program: {error}"))?;
    if !output.status.success() {
        return Err(format!("gcc: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    Ok(())
}
