//! The machine of an operating systems course: a small Multiboot kernel with the serial port and the VGA text screen as its console at
//! once, and two raw IDE drives, one on each channel, that it reads and writes by programmed I/O with interrupts 14 and 15.
//!
//! The kernel counts its interrupts, so that one too many is as wrong as one too few (ATA/ATAPI-6, 9.5 to 9.7: PIO data-in interrupts
//! before each block, data-out after each block, no data once at the end). `EMU_TEST_MACHINE=qemu` holds the test against QEMU.

use emu_tests::guest::{Guest, Machine};
use iced_x86::IcedError;
use iced_x86::code_asm::{
    CodeAssembler, CodeLabel, al, ax, bl, byte_ptr, ds, dword_ptr, dx, eax, ebx, ecx, edi, edx, es, esi, esp, ptr, ss,
    word_ptr,
};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const LOAD_ADDRESS: u32 = 0x10_0000;
/// Behind the Multiboot header: the descriptor table, what LGDT and LIDT load, the first instruction.
const GDT: u32 = LOAD_ADDRESS + 32;
const GDT_POINTER: u32 = GDT + 24;
const IDT_POINTER: u32 = GDT_POINTER + 6;
const ENTRY: u32 = IDT_POINTER + 6;
const STACK: u32 = 0x8_0000;
/// Code and data segments that the kernel sets up itself.
const CODE: u16 = 8;
const DATA: u16 = 16;
/// Where the interrupt table, the variables and the sectors are.
const IDT: u32 = 0x1_0000;
/// Interrupts of channel 0 and 1, as double words, and the last status of each; the cell of the screen that is next.
const COUNTS: u32 = 0x2_0000;
const STATUSES: u32 = 0x2_0010;
const CURSOR: u32 = 0x2_0020;
const BUFFER: u32 = 0x3_0000;
const SCREEN: u32 = 0xb_8000;
/// The vectors that the interrupt controllers are set to.
const MASTER_VECTORS: u32 = 0x20;
const SLAVE_VECTORS: u32 = 0x28;

const READ_SECTORS: i32 = 0x20;
const WRITE_SECTORS: i32 = 0x30;
const READ_MULTIPLE: i32 = 0xc4;
const WRITE_MULTIPLE: i32 = 0xc5;
const SET_MULTIPLE_MODE: i32 = 0xc6;
const FLUSH_CACHE: i32 = 0xe7;
const IDENTIFY_DEVICE: i32 = 0xec;

/// Each byte of the sectors that are copied is turned by this.
const KEY: u32 = 0x5a5a_5a5a;
const SECTOR: usize = 512;
/// Sectors of a drive.
const CAPACITY: usize = 20_000;

/// A kernel under construction, with its subroutines.
struct Kernel {
    a: CodeAssembler,
    /// Prints the byte in BL.
    put: CodeLabel,
    /// Prints a space and EBX as a hexadecimal number.
    number: CodeLabel,
}

impl Kernel {
    fn print(&mut self, text: &str) -> Result<(), IcedError> {
        for byte in text.bytes() {
            self.a.mov(bl, i32::from(byte))?;
            self.a.call(self.put)?;
        }
        Ok(())
    }

    fn out(&mut self, port: u16, value: i32) -> Result<(), IcedError> {
        self.a.mov(dx, i32::from(port))?;
        self.a.mov(al, value)?;
        self.a.out(dx, al)
    }

    /// Serial port at 115,200 bits/s; output goes there and to the screen.
    fn console(&mut self) -> Result<(), IcedError> {
        for (register, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 3), (2, 7), (4, 3)] {
            self.out(0x3f8 + register, value)?;
        }
        let a = &mut self.a;
        a.mov(edi, SCREEN)?;
        a.mov(dword_ptr(CURSOR), edi)?;
        a.mov(ecx, 80 * 25)?;
        a.mov(ax, 0x1f20)?;
        a.rep().stosw()
    }

    fn subroutines(&mut self) -> Result<(), IcedError> {
        let a = &mut self.a;
        let (mut busy, mut column, mut done) = (a.create_label(), a.create_label(), a.create_label());
        a.set_label(&mut self.put)?;
        a.mov(dx, 0x3fd)?;
        a.set_label(&mut busy)?;
        a.in_(al, dx)?;
        a.test(al, 0x20)?;
        a.je(busy)?;
        a.mov(dx, 0x3f8)?;
        a.mov(al, bl)?;
        a.out(dx, al)?;
        a.mov(edi, dword_ptr(CURSOR))?;
        a.cmp(bl, i32::from(b'\n'))?;
        a.jne(column)?;
        // To the start of the next row of 160 bytes.
        a.lea(eax, edi - (SCREEN as i32))?;
        a.xor(edx, edx)?;
        a.mov(ecx, 160)?;
        a.div(ecx)?;
        a.sub(edi, edx)?;
        a.add(edi, 160)?;
        a.jmp(done)?;
        a.set_label(&mut column)?;
        a.mov(byte_ptr(edi), bl)?;
        a.add(edi, 2)?;
        a.set_label(&mut done)?;
        a.mov(dword_ptr(CURSOR), edi)?;
        a.ret()?;

        let (mut digit, mut letter) = (a.create_label(), a.create_label());
        a.set_label(&mut self.number)?;
        a.push(ebx)?;
        a.mov(bl, i32::from(b' '))?;
        a.call(self.put)?;
        a.pop(ebx)?;
        a.mov(esi, 8)?;
        a.set_label(&mut digit)?;
        a.rol(ebx, 4)?;
        a.push(ebx)?;
        a.and(bl, 15)?;
        a.add(bl, i32::from(b'0'))?;
        a.cmp(bl, i32::from(b'9'))?;
        a.jbe(letter)?;
        a.add(bl, 39)?;
        a.set_label(&mut letter)?;
        a.call(self.put)?;
        a.pop(ebx)?;
        a.dec(esi)?;
        a.jne(digit)?;
        a.ret()
    }

    /// Both 8259s in cascade, with the two IDE interrupts alone let through.
    fn interrupt_controllers(&mut self) -> Result<(), IcedError> {
        for (port, words, mask) in
            [(0x20, [0x11, MASTER_VECTORS, 4, 1], 0xfb), (0xa0, [0x11, SLAVE_VECTORS, 2, 1], 0x3f)]
        {
            self.out(port, words[0] as i32)?;
            for word in &words[1..] {
                self.out(port + 1, *word as i32)?;
            }
            self.out(port + 1, mask)?;
        }
        Ok(())
    }

    /// Points the interrupt of channel 0 or 1 at a handler that counts, and reads the status, which takes the interrupt back.
    fn handler(&mut self, channel: u16) -> Result<(), IcedError> {
        let a = &mut self.a;
        let mut behind = a.create_label();
        // The return address is the handler's.
        a.call(behind)?;
        a.pushad()?;
        a.mov(dx, i32::from(command_block(channel) + 7))?;
        a.in_(al, dx)?;
        a.movzx(eax, al)?;
        a.mov(dword_ptr(STATUSES + u32::from(channel) * 4), eax)?;
        a.inc(dword_ptr(COUNTS + u32::from(channel) * 4))?;
        a.mov(al, 0x20)?;
        a.out(0xa0, al)?;
        a.out(0x20, al)?;
        a.popad()?;
        a.iretd()?;
        a.set_label(&mut behind)?;
        a.pop(eax)?;
        let gate = IDT + (SLAVE_VECTORS + 6 + u32::from(channel)) * 8;
        a.mov(word_ptr(gate), ax)?;
        a.mov(word_ptr(gate + 2), u32::from(CODE))?;
        a.mov(word_ptr(gate + 4), 0x8e00u32)?;
        a.shr(eax, 16)?;
        a.mov(word_ptr(gate + 6), ax)
    }

    /// The kernel's own segments and interrupt table.
    fn tables(&mut self) -> Result<(), IcedError> {
        let a = &mut self.a;
        let (mut retire, mut behind) = (a.create_label(), a.create_label());
        a.mov(esp, STACK)?;
        a.lgdt(ptr(GDT_POINTER))?;
        a.lidt(ptr(IDT_POINTER))?;
        // A far return to the jump behind the call.
        a.push(i32::from(CODE))?;
        a.call(retire)?;
        a.jmp(behind)?;
        a.set_label(&mut retire)?;
        a.retf()?;
        a.set_label(&mut behind)?;
        a.mov(ax, i32::from(DATA))?;
        for segment in [ds, es, ss] {
            a.mov(segment, ax)?;
        }
        Ok(())
    }

    /// Starts `command` for `count` sectors from `lba` on the first drive of a channel.
    fn command(&mut self, channel: u16, command: i32, lba: u32, count: u8) -> Result<(), IcedError> {
        let base = command_block(channel);
        let mut busy = self.a.create_label();
        self.out(base + 6, 0xe0 | (lba >> 24) as i32)?;
        self.a.mov(dx, i32::from(base + 7))?;
        self.a.set_label(&mut busy)?;
        self.a.in_(al, dx)?;
        self.a.test(al, 0x88)?;
        self.a.jne(busy)?;
        self.a.mov(dword_ptr(COUNTS + u32::from(channel) * 4), 0)?;
        self.out(base + 2, i32::from(count))?;
        for (register, value) in (base + 3..).zip(&lba.to_le_bytes()[..3]) {
            self.out(register, i32::from(*value))?;
        }
        self.out(base + 7, command)
    }

    /// Sleeps until the channel has interrupted `count` times since the command.
    fn wait(&mut self, channel: u16, count: i32) -> Result<(), IcedError> {
        let a = &mut self.a;
        let (mut again, mut done) = (a.create_label(), a.create_label());
        a.set_label(&mut again)?;
        a.cli()?;
        a.cmp(dword_ptr(COUNTS + u32::from(channel) * 4), count)?;
        a.jae(done)?;
        a.sti()?;
        a.hlt()?;
        a.jmp(again)?;
        a.set_label(&mut done)?;
        a.sti()
    }

    /// Moves `bytes` between the channel's data register and memory.
    fn transfer(&mut self, channel: u16, write: bool, at: u32, bytes: u32) -> Result<(), IcedError> {
        let a = &mut self.a;
        a.cld()?;
        a.mov(dx, i32::from(command_block(channel)))?;
        a.mov(ecx, bytes / 2)?;
        if write {
            a.mov(esi, at)?;
            a.rep().outsw()
        } else {
            a.mov(edi, at)?;
            a.rep().insw()
        }
    }

    /// A command that reads or writes `count` sectors, `block` for each interrupt.
    fn sectors(&mut self, channel: u16, command: i32, lba: u32, count: u8, block: u8) -> Result<(), IcedError> {
        let write = matches!(command, WRITE_SECTORS | WRITE_MULTIPLE);
        self.command(channel, command, lba, count)?;
        if write {
            // There is no interrupt before the first block.
            let mut again = self.a.create_label();
            self.a.mov(dx, i32::from(control_block(channel)))?;
            self.a.set_label(&mut again)?;
            self.a.in_(al, dx)?;
            self.a.and(al, 0x88)?;
            self.a.cmp(al, 8)?;
            self.a.jne(again)?;
        }
        for number in 0..i32::from(count / block) {
            let bytes = u32::from(block) * SECTOR as u32;
            let at = BUFFER + number as u32 * bytes;
            if write {
                self.transfer(channel, true, at, bytes)?;
                self.wait(channel, number + 1)?;
            } else {
                self.wait(channel, number + 1)?;
                self.transfer(channel, false, at, bytes)?;
            }
        }
        Ok(())
    }

    /// Prints the number of interrupts since the last command, and BSY, DF, DRQ and ERR as the last one found them.
    fn report(&mut self, name: &str, channel: u16) -> Result<(), IcedError> {
        self.print(&format!("drive {channel} {name}:"))?;
        for variable in [COUNTS, STATUSES] {
            self.a.mov(ebx, dword_ptr(variable + u32::from(channel) * 4))?;
            if variable == STATUSES {
                self.a.and(ebx, 0xa9)?;
            }
            self.a.call(self.number)?;
        }
        self.print("\n")
    }

    /// Turns the first `bytes` of the buffer by the key.
    fn turn(&mut self, bytes: u32) -> Result<(), IcedError> {
        let mut again = self.a.create_label();
        self.a.mov(edi, BUFFER)?;
        self.a.set_label(&mut again)?;
        self.a.xor(dword_ptr(edi), KEY as i32)?;
        self.a.add(edi, 4)?;
        self.a.cmp(edi, (BUFFER + bytes) as i32)?;
        self.a.jb(again)
    }
}

fn command_block(channel: u16) -> u16 {
    if channel == 0 { 0x1f0 } else { 0x170 }
}

fn control_block(channel: u16) -> u16 {
    command_block(channel) + 0x206
}

fn program() -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(32)?;
    let (put, number, mut start) = (a.create_label(), a.create_label(), a.create_label());
    // Multiboot Specification 0.6.96, 3.1: bit 16 says that the addresses are here. The end of the file is the end of data.
    let (magic, flags) = (0x1bad_b002u32, 1u32 << 16);
    let checksum = 0u32.wrapping_sub(magic).wrapping_sub(flags);
    a.dd(&[magic, flags, checksum, LOAD_ADDRESS, LOAD_ADDRESS, 0, 0, ENTRY])?;
    a.dq(&[0, 0x00cf_9a00_0000_ffff, 0x00cf_9200_0000_ffff])?;
    a.dw(&[23])?;
    a.dd(&[GDT])?;
    a.dw(&[0x7ff])?;
    a.dd(&[IDT])?;

    a.jmp(start)?;
    let mut k = Kernel { a, put, number };
    k.subroutines()?;
    k.a.set_label(&mut start)?;
    k.a.cli()?;
    k.tables()?;
    k.console()?;
    k.print("course kernel\n")?;
    k.interrupt_controllers()?;
    for channel in 0..2 {
        k.handler(channel)?;
        // nIEN off.
        k.out(control_block(channel), 0)?;
    }
    k.a.sti()?;

    for channel in 0..2 {
        k.sectors(channel, IDENTIFY_DEVICE, 0, 1, 1)?;
        k.report("identify", channel)?;
        k.print(&format!("drive {channel} sectors:"))?;
        k.a.mov(ebx, dword_ptr(BUFFER + 60 * 2))?;
        k.a.call(k.number)?;
        k.print("\n")?;
        k.sectors(channel, READ_SECTORS, 3, 5, 1)?;
        k.report("read", channel)?;
        k.turn(5 * SECTOR as u32)?;
        k.sectors(channel, WRITE_SECTORS, 1000, 5, 1)?;
        k.report("write", channel)?;
        k.command(channel, SET_MULTIPLE_MODE, 0, 4)?;
        k.wait(channel, 1)?;
        k.sectors(channel, READ_MULTIPLE, 10, 12, 4)?;
        k.report("read multiple", channel)?;
        k.turn(12 * SECTOR as u32)?;
        k.sectors(channel, WRITE_MULTIPLE, CAPACITY as u32 - 12, 12, 4)?;
        k.report("write multiple", channel)?;
        k.command(channel, FLUSH_CACHE, 0, 0)?;
        k.wait(channel, 1)?;
        k.report("flush", channel)?;
        k.command(channel, READ_SECTORS, CAPACITY as u32, 1)?;
        k.wait(channel, 1)?;
        k.report("read past the end", channel)?;
        k.command(channel, 0xff, 0, 1)?;
        k.wait(channel, 1)?;
        k.report("unknown command", channel)?;
    }
    // Both at once.
    k.command(0, READ_SECTORS, 50, 1)?;
    k.command(1, READ_SECTORS, 60, 1)?;
    k.wait(1, 1)?;
    k.transfer(1, false, BUFFER, SECTOR as u32)?;
    k.wait(0, 1)?;
    k.transfer(0, false, BUFFER + SECTOR as u32, SECTOR as u32)?;
    k.sectors(0, WRITE_SECTORS, 60, 2, 1)?;
    k.report("both", 0)?;
    k.report("both", 1)?;
    k.print("all done\n")?;
    let mut forever = k.a.create_label();
    k.a.set_label(&mut forever)?;
    k.a.hlt()?;
    k.a.jmp(forever)?;
    k.a.assemble(LOAD_ADDRESS.into())
}

/// A temporary file, removed when dropped.
struct TemporaryFile(PathBuf);

impl TemporaryFile {
    fn new(name: &str, bytes: &[u8]) -> TemporaryFile {
        let path = std::env::temp_dir().join(format!("emu-course-{}-{name}", std::process::id()));
        fs::write(&path, bytes).expect("a temporary file");
        TemporaryFile(path)
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        // What is left in a temporary folder harms nobody.
        let _ = fs::remove_file(&self.0);
    }
}

/// What the kernel says of a drive.
fn report(drive: u8) -> String {
    [
        "identify: 00000001 00000008",
        "sectors: 00004e20",
        "read: 00000005 00000008",
        "write: 00000005 00000000",
        "read multiple: 00000003 00000008",
        "write multiple: 00000003 00000000",
        "flush: 00000001 00000000",
        "read past the end: 00000001 00000001",
        "unknown command: 00000001 00000001",
    ]
    .map(|line| format!("drive {drive} {line}\n"))
    .concat()
}

#[test]
fn kernel_with_two_drives_and_two_consoles_does_pio_by_interrupts() {
    let kernel = TemporaryFile::new("kernel", &program().expect("the kernel assembles"));
    let contents = [1, 2].map(|seed| {
        let mut bytes = vec![0; CAPACITY * SECTOR];
        fastrand::Rng::with_seed(seed).fill(&mut bytes);
        bytes
    });
    let drives = [TemporaryFile::new("first", &contents[0]), TemporaryFile::new("second", &contents[1])];
    let machine = Machine::under_test().unwrap_or_else(|error| panic!("{error}"));
    let mut command = machine.command();
    command.arg("-kernel").arg(&kernel.0);
    for (drive, index) in drives.iter().zip([0, 2]) {
        command.arg("-drive").arg(format!("file={},format=raw,if=ide,index={index}", drive.0.display()));
    }
    let mut guest = Guest::start(&mut command, Duration::from_secs(60)).unwrap_or_else(|error| panic!("{error}"));
    let mut expect = |text: &str| guest.expect(text).unwrap_or_else(|error| panic!("{error}"));
    expect("course kernel\n");
    let serial = expect("all done\n");
    let expected =
        format!("{}{}drive 0 both: 00000002 00000000\ndrive 1 both: 00000001 00000008\n", report(0), report(1));
    assert_eq!(serial, expected);

    // The screen says the same: here its first and its last word, by the monitor behind Ctrl-A C.
    guest.send_line("\x01c").expect("the monitor listens");
    for (row, text) in [(0, "course"), (21, "all do")] {
        let cells: Vec<String> = text.bytes().map(|byte| format!("{:#06x}", 0x1f00 | u16::from(byte))).collect();
        guest.send_line(&format!("xp /6hx {:#x}", SCREEN + row * 160)).expect("the monitor listens");
        guest.expect(&cells.join(" ")).unwrap_or_else(|error| panic!("{error}"));
    }
    guest.send_line("quit").expect("the monitor listens");
    let status = guest.wait().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(status.code(), Some(0), "{}", guest.errors());

    let sectors = |drive: usize, from: usize, count: usize| &contents[drive][from * SECTOR..][..count * SECTOR];
    let turned = |bytes: &[u8]| bytes.iter().map(|byte| byte ^ KEY.to_le_bytes()[0]).collect::<Vec<u8>>();
    for (drive, file) in drives.iter().enumerate() {
        let mut wanted = contents[drive].clone();
        let mut put = |at: usize, bytes: &[u8]| wanted[at * SECTOR..][..bytes.len()].copy_from_slice(bytes);
        put(1000, &turned(sectors(drive, 3, 5)));
        put(CAPACITY - 12, &turned(sectors(drive, 10, 12)));
        if drive == 0 {
            put(60, &[sectors(1, 60, 1), sectors(0, 50, 1)].concat());
        }
        let found = fs::read(&file.0).expect("the image is still there");
        let differs = found.chunks(SECTOR).zip(wanted.chunks(SECTOR)).position(|(found, wanted)| found != wanted);
        assert_eq!((found.len(), differs), (wanted.len(), None), "drive {drive}: length, first sector that differs");
    }
}
