//! A guest for tests of the emulator's outside: a bzImage of some hundred bytes that obeys single letters.
//!
//! It prints `ready` on COM1 and then echoes what it receives there, but for: `q` powers off, `e` writes 3 to port F4h
//! (isa-debug-exit), `r` resets the machine, `t` triple-faults, `d` writes a letter to port E9h, `f` floods COM1 with
//! 100,000 letters and a line end, `k` turns the mouse on and from then on prints what keyboard and mouse send, in
//! hexadecimal, bytes of the mouse behind an `m`, and `K` does so with the mouse's wheel and side buttons.

// Each test binary uses a part of this.
#![allow(dead_code)]

use iced_x86::IcedError;
use iced_x86::code_asm::{CodeAssembler, CodeLabel, ah, al, bl, dx, eax, ebx, ecx, esi, esp, ptr};
use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Where boot loaders put the protected-mode part.
const LOAD_ADDRESS: u64 = 0x10_0000;
/// A stack in conventional memory.
const STACK: u32 = 0x8_0000;
/// No test waits longer than this for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Options that have the emulator run with the accelerator that the environment names, as in `EMU_ACCEL=jit`.
pub fn accelerator() -> Vec<OsString> {
    std::env::var_os("EMU_ACCEL").map_or_else(Vec::new, |name| vec!["-accel".into(), name])
}

fn program() -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(32)?;
    let (mut receive, mut send) = (a.create_label(), a.create_label());
    a.mov(esp, STACK)?;
    for letter in b"ready\n" {
        a.mov(bl, i32::from(*letter))?;
        a.call(send)?;
    }
    receive_al(&mut a, &mut receive)?;
    a.mov(bl, al)?;
    on_letter(&mut a, b'q', receive, |a| {
        a.mov(dx, 0x604)?;
        a.mov(eax, 0x2000)?;
        a.out(dx, iced_x86::code_asm::ax)
    })?;
    on_letter(&mut a, b'e', receive, |a| {
        a.mov(dx, 0xf4)?;
        a.mov(al, 3)?;
        a.out(dx, al)
    })?;
    on_letter(&mut a, b'r', receive, |a| {
        a.mov(dx, 0x92)?;
        a.mov(al, 3)?;
        a.out(dx, al)
    })?;
    on_letter(&mut a, b't', receive, |a| {
        a.lidt(ptr(0x10))?;
        a.ud2()
    })?;
    on_letter(&mut a, b'd', receive, |a| {
        a.mov(al, i32::from(b'D'))?;
        a.out(0xe9, al)
    })?;
    on_letter(&mut a, b'f', receive, |a| {
        let mut next = a.create_label();
        a.mov(ecx, 100_000)?;
        a.set_label(&mut next)?;
        a.mov(bl, i32::from(b'x'))?;
        a.call(send)?;
        a.dec(ecx)?;
        a.jne(next)?;
        a.mov(bl, i32::from(b'\n'))?;
        a.call(send)
    })?;
    // Mouse: enable reporting. And before that, for wheel and side buttons, sample rates 200, 200 and 80.
    on_letter(&mut a, b'k', receive, |a| keyboard(a, send, &[0xf4]))?;
    on_letter(&mut a, b'K', receive, |a| keyboard(a, send, &[0xf3, 200, 0xf3, 200, 0xf3, 80, 0xf4]))?;
    a.call(send)?;
    a.jmp(receive)?;

    send_bl(&mut a, &mut send)?;
    a.assemble(LOAD_ADDRESS)
}

/// At `receive`: waits for a byte on COM1, and goes on with it in AL. Changes DX.
pub fn receive_al(a: &mut CodeAssembler, receive: &mut CodeLabel) -> Result<(), IcedError> {
    a.set_label(receive)?;
    a.mov(dx, 0x3fd)?;
    a.in_(al, dx)?;
    a.test(al, 1)?;
    a.je(*receive)?;
    a.mov(dx, 0x3f8)?;
    a.in_(al, dx)
}

/// At `send`: a function that sends BL on COM1. It changes AL and DX.
pub fn send_bl(a: &mut CodeAssembler, send: &mut CodeLabel) -> Result<(), IcedError> {
    let mut busy = a.create_label();
    a.set_label(send)?;
    a.mov(dx, 0x3fd)?;
    a.set_label(&mut busy)?;
    a.in_(al, dx)?;
    a.test(al, 0x20)?;
    a.je(busy)?;
    a.mov(dx, 0x3f8)?;
    a.mov(al, bl)?;
    a.out(dx, al)?;
    a.ret()
}

/// At `digit`: a function that sends BL, 0 to 15, as a hexadecimal digit by the function [`send_bl`] is at.
pub fn send_digit(a: &mut CodeAssembler, digit: &mut CodeLabel, send: CodeLabel) -> Result<(), IcedError> {
    a.set_label(digit)?;
    a.add(bl, i32::from(b'0'))?;
    a.cmp(bl, i32::from(b'9'))?;
    a.jbe(send)?;
    a.add(bl, i32::from(b'a' - b'9' - 1))?;
    a.jmp(send)
}

/// Sends commands to the mouse (8042: write to the auxiliary device), and shows every byte of the 8042.
fn keyboard(a: &mut CodeAssembler, send: CodeLabel, to_mouse: &[u8]) -> Result<(), IcedError> {
    let (mut next, mut show, mut nibble) = (a.create_label(), a.create_label(), a.create_label());
    for byte in to_mouse {
        a.mov(al, 0xd4)?;
        a.out(0x64, al)?;
        a.mov(al, i32::from(*byte))?;
        a.out(0x60, al)?;
    }
    a.set_label(&mut next)?;
    a.in_(al, 0x64)?;
    a.test(al, 1)?;
    a.je(next)?;
    a.mov(ah, al)?;
    a.in_(al, 0x60)?;
    a.movzx(esi, al)?;
    a.test(ah, 0x20)?;
    a.je(show)?;
    a.mov(bl, i32::from(b'm'))?;
    a.call(send)?;
    a.set_label(&mut show)?;
    a.mov(ebx, esi)?;
    a.shr(ebx, 4)?;
    a.call(nibble)?;
    a.mov(ebx, esi)?;
    a.and(ebx, 15)?;
    a.call(nibble)?;
    a.mov(bl, i32::from(b' '))?;
    a.call(send)?;
    a.jmp(next)?;
    send_digit(a, &mut nibble, send)
}

/// If BL is `letter`, does `body` and goes on at `next`.
fn on_letter(
    a: &mut CodeAssembler,
    letter: u8,
    next: CodeLabel,
    body: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Result<(), IcedError> {
    let mut other = a.create_label();
    a.cmp(bl, i32::from(letter))?;
    a.jne(other)?;
    body(a)?;
    a.jmp(next)?;
    a.set_label(&mut other)
}

/// The guest as a bzImage.
pub fn kernel() -> Vec<u8> {
    bz_image(program().expect("the guest assembles"))
}

/// A bzImage of boot protocol 2.15 whose 32-bit entry point is at the first byte of `code` (Documentation/arch/x86/boot.rst).
fn bz_image(mut code: Vec<u8>) -> Vec<u8> {
    code.resize(code.len().next_multiple_of(16), 0x90);
    let mut file = vec![0; 1024];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]);
    put(0x1f4, &(code.len() as u32 / 16).to_le_bytes());
    put(0x1fe, &[0x55, 0xaa, 0xeb, 0x66]);
    put(0x202, b"HdrS");
    put(0x206, &0x020fu16.to_le_bytes());
    put(0x211, &[1]);
    put(0x214, &(LOAD_ADDRESS as u32).to_le_bytes());
    put(0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(0x230, &0x1000u32.to_le_bytes());
    put(0x238, &0x7ffu32.to_le_bytes());
    put(0x258, &LOAD_ADDRESS.to_le_bytes());
    put(0x260, &0x1_0000u32.to_le_bytes());
    file.extend(code);
    file
}

/// A name in the temporary folder that no other test uses.
pub fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("emu-{}-{name}", std::process::id()))
}

/// The guest as a file; removed when dropped.
pub struct KernelFile(pub PathBuf);

impl KernelFile {
    /// Writes the file for the test called `name`.
    pub fn new(name: &str) -> KernelFile {
        KernelFile::write(name, &kernel())
    }

    /// The same with another guest: what `program` assembles, of 32 bits, which finds a stack.
    pub fn with(name: &str, program: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> KernelFile {
        let assemble = || {
            let mut a = CodeAssembler::new(32)?;
            a.mov(esp, STACK)?;
            program(&mut a)?;
            a.assemble(LOAD_ADDRESS)
        };
        KernelFile::write(name, &bz_image(assemble().expect("the guest assembles")))
    }

    fn write(name: &str, image: &[u8]) -> KernelFile {
        let path = temporary(&format!("{name}.bin"));
        std::fs::write(&path, image).expect("the temporary folder is writable");
        KernelFile(path)
    }
}

impl Drop for KernelFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A running emulator whose output is collected; killed when dropped.
pub struct Emulator {
    pub child: Child,
    pub output: Stream,
    pub errors: Stream,
    _kernel: Option<KernelFile>,
}

/// Bytes that arrive from somewhere.
pub struct Stream {
    chunks: Receiver<Vec<u8>>,
    text: Vec<u8>,
}

impl Stream {
    /// Collects from `source` on a thread.
    pub fn of(mut source: impl Read + Send + 'static) -> Stream {
        let (sender, chunks) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = source.read(&mut buffer) {
                if sender.send(buffer[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        Stream { chunks, text: Vec::new() }
    }

    /// Waits until `wanted` has arrived, and takes everything up to its end.
    pub fn expect(&mut self, wanted: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.text.windows(wanted.len()).position(|w| w == wanted.as_bytes());
            if let Some(at) = found {
                let taken: Vec<u8> = self.text.drain(..at + wanted.len()).collect();
                return String::from_utf8_lossy(&taken).into_owned();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{wanted:?} did not come: {} other bytes", self.text.len());
            match self.chunks.recv_timeout(left) {
                Ok(chunk) => self.text.extend(chunk),
                Err(e) => panic!("{wanted:?} did not come ({e}): {:?}", String::from_utf8_lossy(&self.text)),
            }
        }
    }

    /// Waits for the end; everything that is left.
    pub fn rest(mut self) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        while let Ok(chunk) = self.chunks.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.text.extend(chunk);
            assert!(Instant::now() < deadline, "the stream does not end");
        }
        self.text
    }
}

impl Emulator {
    /// Starts the guest with `arguments`; `name` is that of the test.
    pub fn start(name: &str, arguments: &[&str]) -> Emulator {
        let hidden: Vec<&str> = ["-display", "none"].iter().chain(arguments).copied().collect();
        Emulator::start_with(name, &hidden, &[])
    }

    /// Starts the guest with `arguments` alone, in `environment` on top of the test's own.
    pub fn start_with(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Emulator {
        Emulator::launch(name, |command| command.args(arguments).envs(environment.iter().copied()))
    }

    /// Starts the guest as `prepare` asks for.
    pub fn launch(name: &str, prepare: impl FnOnce(&mut Command) -> &mut Command) -> Emulator {
        let kernel = KernelFile::new(name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_emu"));
        command.args(accelerator()).arg("-kernel").arg(&kernel.0).args(["-m", "16"]);
        prepare(&mut command);
        Emulator::spawn(command, Some(kernel))
    }

    /// Starts `command`, which is or becomes the emulator.
    pub fn spawn(mut command: Command, kernel: Option<KernelFile>) -> Emulator {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("emu starts");
        let output = Stream::of(child.stdout.take().expect("stdout is piped"));
        let errors = Stream::of(child.stderr.take().expect("stderr is piped"));
        Emulator { child, output, errors, _kernel: kernel }
    }

    /// Types on the emulator's stdin.
    pub fn type_keys(&mut self, keys: &[u8]) {
        let stdin = self.child.stdin.as_mut().expect("stdin is piped");
        stdin.write_all(keys).and_then(|()| stdin.flush()).expect("emu reads its stdin");
    }

    /// Waits for the end; the exit status.
    pub fn wait(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("emu can be waited for") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("emu does not end");
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
