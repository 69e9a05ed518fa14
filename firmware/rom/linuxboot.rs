//! The option ROM that starts a Linux kernel which fw_cfg holds: what `-kernel` goes through when there is firmware.
//!
//! A Plug and Play boot entry (Plug and Play BIOS Specification 1.0A, 3.2) that firmware finds as the file `genroms/linuxboot.bin` and `bootorder`
//! names. It moves the parts to where fw_cfg says (QEMU's include/standard-headers/linux/qemu_fw_cfg.h has the keys) and enters the kernel's
//! 16-bit setup code as Documentation/arch/x86/boot.rst of Linux, "Running the Kernel", wants it:
//!
//! | part | address | size | data |
//! |---|---|---|---|
//! | setup code, its header filled in | 16h | 17h | 18h |
//! | command line | 13h | 14h | 15h |
//! | kernel proper | 07h | 08h | 11h |
//! | initial RAM disk | 0Ah | 0Bh | 12h |
//!
//! fw_cfg's DMA interface is used where it is offered, else its data port, with a segment of 4 GiB in real mode. Should firmware have kept memory where
//! the RAM disk was to be, the RAM disk goes lower.

use crate::rom::asm::*;

const KEY_ID: u32 = 0x01;
const ID_DMA: u32 = 2;
/// A DMA command's control word, as a little-endian number: read, select (big-endian bits 1 and 3); the key comes above them.
const DMA_SELECT_READ: u32 = 0x0Au32.swap_bytes();
const DMA_ERROR: u32 = 1u32.swap_bytes();

/// Keys of a part's address, size and data.
pub struct Part(pub u32, pub u32, pub u32);
pub const KERNEL: Part = Part(0x07, 0x08, 0x11);
const INITRD: Part = Part(0x0A, 0x0B, 0x12);
const COMMAND_LINE: Part = Part(0x13, 0x14, 0x15);
pub const SETUP: Part = Part(0x16, 0x17, 0x18);

/// The field of the setup header that holds the RAM disk's address.
const RAMDISK_IMAGE: i32 = 0x218;
/// The ROM's own stack, below the boot sector's place (segment 0).
pub const STACK: u32 = 0x7C00;
/// A word behind it: memory above 16 MiB, as INT 15h AX=E801h has it.
const MEMORY: u32 = STACK;
/// What setup code's stack keeps free below the command line.
const STACK_GAP: u32 = 16;
/// Where memory above 16 MiB starts, which INT 15h AX=E801h counts in units of 64 KiB.
const MIB_16: u32 = 0x100_0000;
const PAGE: i32 = 0x1000;

/// Where the header's fields are in the ROM.
const PNP_AT: u16 = 0x20;
/// Base class and subclass of mass storage controllers of other kinds; device indicators: initial program load device, read-cacheable.
const DEVICE_TYPE: [u8; 3] = [0x01, 0x80, 0x00];
const INDICATORS: u8 = 0x14;
/// What initialisation returns in AX: an initial program load device is attached.
const ATTACHED: u32 = 0x20;

/// A flat data segment of 4 GiB behind the null descriptor.
const GDT: [u64; 2] = [0, 0x00CF_9300_0000_FFFF];
const FLAT: u32 = 8;

pub fn emit(rom: &mut Rom) {
    header(rom, "Linux kernel of -kernel", "linuxboot");
    start(rom);
    load(rom);
}

/// The ROM's header: what it boots, and the symbol of its boot entry.
pub fn header(rom: &mut Rom, product: &str, entry: &str) {
    let product = rom.text(product);
    let vendor = rom.text("emu");
    let mut pnp = Vec::new();
    // Version 1.0, length in units of 16 bytes, no further header, checksum, device identifier.
    pnp.extend(b"$PnP\x01\x02\0\0\0\0");
    pnp.extend([0; 4]);
    pnp.extend([vendor, product].map(u16::to_le_bytes).concat());
    pnp.extend(DEVICE_TYPE);
    pnp.push(INDICATORS);
    // No boot connection vector, no disconnect vector, the boot entry vector, a reserved word, no resources.
    pnp.extend([0, 0, rom.offset(entry), 0, 0].map(u16::to_le_bytes).concat());
    crate::rom::services::pnp::close(&mut pnp, 9);
    asm! { rom;
        // The length is filled in at the end.
        db(&[0x55, 0xAA, 0]);
        mov(ax, ATTACHED);
        retf();
        zeros(0x18 - 3 - 4);
        // No PCI data structure.
        dw(&[0, PNP_AT, 0, 0]);
        db(&pnp);
    }
}

fn start(rom: &mut Rom) {
    asm! { rom;
        label("linuxboot");
        cld();
        cli();
        xor(eax, eax);
        mov(ds, ax);
        mov(ss, ax);
        mov(esp, STACK);
        sti();
        // Nothing to load: what comes next in the boot order.
        mov(ax, SETUP.1);
        call("linuxboot.word");
        test(eax, eax);
        jnz(".found");
        int(0x18);
        label(".found");
        call("linuxboot.setup");
        call("linuxboot.parts");

        // DS = ES = FS = GS = SS = the setup code's segment; its stack ends below the command line.
        mov(ax, SETUP.0);
        call("linuxboot.word");
        mov(ebx, eax);
        mov(ax, COMMAND_LINE.0);
        call("linuxboot.word");
        sub(eax, ebx);
        sub(eax, STACK_GAP);
        shr(ebx, 4);
        cli();
        mov(ss, bx);
        mov(esp, eax);
        mov(ds, bx);
        mov(es, bx);
        mov(fs, bx);
        mov(gs, bx);
        add(bx, 0x20);
        push(bx);
        push(0);
        retf();

        label("linuxboot.setup");
        for_part(&SETUP);
        jmp("linuxboot.part");

        label("linuxboot.parts");
        for_part(&COMMAND_LINE);
        call("linuxboot.part");
        for_part(&KERNEL);
        call("linuxboot.part");
        for_part(&INITRD);
        // EDX = where free memory above 16 MiB ends, if there is any.
        pushad();
        xor(cx, cx);
        xor(dx, dx);
        mov(ax, 0xE801);
        int(0x15);
        mov(word_ptr(MEMORY), dx);
        popad();
        movzx(edx, word_ptr(MEMORY));
        test(edx, edx);
        jz("linuxboot.part");
        shl(edx, 16);
        add(edx, MIB_16);
        sub(edx, ecx);
        and(edx, -PAGE);
        cmp(edi, edx);
        jbe("linuxboot.part");
        mov(edi, edx);
        push(eax);
        push(ecx);
        mov(ax, SETUP.0);
        call("linuxboot.word");
        shr(eax, 4);
        mov(es, ax);
        mov(dword_ptr(RAMDISK_IMAGE).es(), edi);
        pop(ecx);
        pop(eax);
        jmp("linuxboot.part");
    }
}

impl Rom {
    /// EDI = a part's address, ECX = its size, AX = the key of its data. Changes EDX.
    pub fn for_part(&mut self, part: &Part) -> Emitted {
        asm! { self;
            mov(ax, part.0);
            call("linuxboot.word");
            mov(edi, eax);
            mov(ax, part.1);
            call("linuxboot.word");
            mov(ecx, eax);
            mov(ax, part.2);
        }
        Ok(())
    }
}

/// What fetches items and parts.
pub fn load(rom: &mut Rom) {
    asm! { rom;
        // EAX = the first four bytes of item AX. Changes DX. Keeps all others.
        label("linuxboot.word");
        push(cx);
        out_ax(0x510);
        inc(dx);
        mov(cx, 4);
        label(".next");
        in_(al, dx);
        ror(eax, 8);
        loop_(".next");
        pop(cx);
        ret();

        // Loads ECX bytes of item AX to EDI. Changes all registers but SP.
        label("linuxboot.part");
        test(ecx, ecx);
        jz(".none");
        movzx(esi, ax);
        mov(ax, KEY_ID);
        call("linuxboot.word");
        test(al, ID_DMA);
        jz(".port");
        // The command is on the stack, which is in segment 0: control, length, address; big-endian.
        mov(eax, edi);
        bswap(eax);
        push(eax);
        push(0u32 as i32);
        push(0u32 as i32);
        mov(eax, ecx);
        bswap(eax);
        push(eax);
        mov(eax, esi);
        shl(eax, 16);
        bswap(eax);
        or(eax, DMA_SELECT_READ as i32);
        push(eax);
        xor(eax, eax);
        out_eax(0x514);
        movzx(eax, sp);
        bswap(eax);
        out_eax(0x518);
        mov(bp, sp);
        label(".wait");
        test(dword_ptr(bp), !DMA_ERROR as i32);
        jnz(".wait");
        add(sp, 16);
        label(".none");
        ret();

        label(".port");
        // ES = a segment of 4 GiB, which it stays in real mode until it is loaded again: interrupts are off.
        cli();
        xor(eax, eax);
        mov(ax, cs);
        shl(eax, 4);
        add(eax, u32::from(rom.offset("linuxboot.gdt")));
        push(eax);
        push(GDT.len() as i32 * 8 - 1);
        mov(bp, sp);
        lgdt(ptr(bp));
        add(sp, 6);
        mov(eax, cr0);
        or(al, 1);
        mov(cr0, eax);
        mov(bx, FLAT);
        mov(es, bx);
        and(al, 0xFE);
        mov(cr0, eax);
        mov(ax, si);
        out_ax(0x510);
        inc(dx);
        // REP INSB with 32-bit addresses.
        db(&[0x67, 0xF3, 0x6C]);
        push(ds);
        pop(es);
        sti();
        ret();

        align(8);
        label("linuxboot.gdt");
        dq(&GDT);
    }
}
