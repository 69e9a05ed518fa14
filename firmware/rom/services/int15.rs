//! INT 15h, system services.
//!
//! | AX | service | in | returns |
//! |---|---|---|---|
//! | 2400, 2401 | A20 off, on | | AH = 0 |
//! | 2402 | state of A20 | | AL = 1 if on, AH = 0 |
//! | 2403 | how A20 can be switched | | BX = 3: keyboard controller, port 92h |
//! | 41.. | wait for an external event | | CF, AH = 86h: not on an AT |
//! | 4F.. | keyboard intercept | AL = scan code | CF set, AL unchanged: process it |
//! | 52.. | media eject intercept | | AH = 0: may be ejected |
//! | 53.. | APM: `apm.rs` | | |
//! | 80, 81, 82, 85, 90, 91 | device open, close, program end, SysRq, busy, interrupt complete | | AH = 0 |
//! | 83.. | set a flag after a time | AL = 0: CX:DX microseconds, ES:BX flag byte; 1: cancel | AL = 0 |
//! | 86 | wait | CX:DX microseconds | |
//! | 87 | move extended memory | CX words, ES:SI six descriptors | AH = 0 |
//! | 88 | extended memory | | AX = KiB above 1 MiB, below 64 MiB |
//! | 89 | enter protected mode | ES:SI eight descriptors, BL, BH vectors of IRQs 0 and 8 | AH = 0, in protected mode |
//! | C0 | configuration | | ES:BX table |
//! | C1 | EBDA | | ES = segment |
//! | C2.. | pointing device: `mouse.rs` | | |
//! | E801, E881 | memory | | AX = CX = KiB from 1 to 16 MiB, BX = DX = 64 KiB units above; E881 in 32-bit registers |
//! | E820 | memory map | EDX = "SMAP", EBX = 0 or as returned, ECX >= 20, ES:DI buffer | EAX = "SMAP", EBX = next or 0, ECX = 20 |
//! | others | | | CF set, AH = 86h |
//!
//! Sources: IBM PS/2 and PC BIOS Interface Technical Reference; ACPI 6.5, 15.1 (E820); IBM PC/AT Technical Reference (87h, 89h).

use crate::rom::asm::*;
use crate::rom::layout::bda;
use crate::rom::post::memory::ENTRY as ENTRY_SIZE;

/// Where software that knows IBM's BIOS finds the service and its table in F000.
const ENTRY: u16 = 0xF859;
const TABLE: u16 = 0xE6F5;
const UNSUPPORTED: u32 = 0x86;
/// "SMAP" in EDX.
const SMAP: u32 = 0x534D_4150;
/// 32-bit variables of POST are seen from real mode through this segment.
const FLAT_SEGMENT: u32 = 0xE800;
const FLAT: u32 = 0xE_8000;
/// The refresh bit of port 61h changes every 15.085 microseconds; this many 1/65536 microseconds.
const REFRESH: u32 = 988_645;

/// INT 15h, AH=C0h: model AT, submodel 1, revision 0; features: second 8259, real-time clock, keyboard intercept, EBDA.
const CONFIGURATION: [u8; 10] = [8, 0, 0xFC, 1, 0, 0x74, 0x40, 0, 0, 0];

pub fn emit(rom: &mut Rom) {
    rom.entry(ENTRY, "int15");
    rom.fixed(TABLE, &CONFIGURATION);
    asm! { rom;
        service("int15");
        dispatch_ah(&[
            (0x24, ".a20"),
            (0x4F, ".keyboard"),
            (0x52, "service.ok_ah0"),
            (0x53, "apm"),
            (0x80, "service.ok_ah0"),
            (0x81, "service.ok_ah0"),
            (0x82, "service.ok_ah0"),
            (0x83, "int15.event"),
            (0x85, "service.ok_ah0"),
            (0x86, "int15.wait"),
            (0x87, "int15.move"),
            (0x88, "int15.extended"),
            (0x89, "int15.protect"),
            (0x90, "service.ok_ah0"),
            (0x91, "service.ok_ah0"),
            (0xC0, ".configuration"),
            (0xC1, ".ebda"),
            (0xC2, "mouse"),
        ]);
        dispatch_ax(&[(0xE820, "int15.map"), (0xE801, "int15.sizes"), (0xE881, "int15.sizes32")]);
        label("int15.unsupported");
        mov(ah, UNSUPPORTED);
        jmp("service.fail_ah");
        vector(0x15, "int15");
        label("int15.keyboard");
        jmp("service.fail");
        label("int15.configuration");
        mov(frame::es(), 0xF000);
        mov(frame::bx(), u32::from(TABLE));
        jmp("service.ok_ah0");
        label("int15.ebda");
        mov(ax, word_ptr(bda::EBDA));
        mov(frame::es(), ax);
        jmp("service.ok");
    }
    a20(rom);
    waits(rom);
    sizes(rom);
    map(rom);
    move_block(rom);
    protect(rom);
}

fn a20(rom: &mut Rom) {
    asm! { rom;
        label("int15.a20");
        dispatch_al(&[(0, ".off"), (1, ".on"), (2, ".state"), (3, ".support")]);
        jmp("int15.unsupported");
        label(".off");
        in_byte(0x92);
        and(al, 0xFC);
        out(0x92, al);
        jmp("service.ok_ah0");
        label(".on");
        in_byte(0x92);
        or(al, 2);
        and(al, 0xFE);
        out(0x92, al);
        jmp("service.ok_ah0");
        label(".state");
        in_byte(0x92);
        shr(al, 1);
        and(al, 1);
        mov(frame::al(), al);
        jmp("service.ok_ah0");
        label(".support");
        mov(frame::bx(), 3);
        jmp("service.ok_ah0");
    }
}

fn waits(rom: &mut Rom) {
    asm! { rom;
        // Waits by the refresh bit, which needs no interrupt.
        label("int15.wait");
        mov(ax, cx);
        shl(eax, 16);
        mov(ax, dx);
        sti();
        call("wait.microseconds");
        jmp("service.ok");

        // Waits EAX microseconds. Changes EAX, ECX, EDX.
        label("wait.microseconds");
        mov(ecx, 65536);
        mul(ecx);
        mov(ecx, REFRESH);
        div(ecx);
        inc(eax);
        mov(ecx, eax);
        in_byte(0x61);
        mov(ah, al);
        and(ah, 0x10);
        label(".next");
        in_byte(0x61);
        and(al, 0x10);
        cmp(al, ah);
        je(".next");
        mov(ah, al);
        dec(ecx);
        jnz(".next");
        ret();

        // The periodic interrupt of the clock counts down in INT 70h, which sets bit 7 of the flag byte.
        label("int15.event");
        cmp(al, 1);
        je(".cancel");
        cmp(al, 0);
        jne("int15.unsupported");
        cmp(byte_ptr(bda::WAIT_ACTIVE), 0);
        jne("service.fail");
        mov(ax, frame::es());
        mov(word_ptr(bda::WAIT_FLAG + 2), ax);
        mov(word_ptr(bda::WAIT_FLAG), bx);
        mov(word_ptr(bda::WAIT_COUNT + 2), cx);
        mov(word_ptr(bda::WAIT_COUNT), dx);
        mov(byte_ptr(bda::WAIT_ACTIVE), 1);
        in_byte(0xA1);
        and(al, 0xFE);
        out(0xA1, al);
        mov(ah, 0x40);
        call("clock.enable");
        mov(frame::al(), 0);
        jmp("service.ok");
        label(".cancel");
        mov(byte_ptr(bda::WAIT_ACTIVE), 0);
        mov(ah, 0x40);
        call("clock.disable");
        mov(frame::al(), 0);
        jmp("service.ok");
    }
}

fn sizes(rom: &mut Rom) {
    let top = (rom.linear("memory.top") - rom.linear("memory.top").min(FLAT)) as i32;
    asm! { rom;
        // EAX = KiB of memory from 1 MiB on, without the tables at its end. Changes ES.
        label("memory.extended");
        push(FLAT_SEGMENT);
        pop(es);
        mov(eax, dword_ptr(top).es());
        test(eax, eax);
        jz(".cmos");
        sub(eax, 0x10_0000);
        shr(eax, 10);
        ret();
        // POST could not write there: there is no shadow RAM, and no memory above what CMOS tells.
        label(".cmos");
        cmos_read(0x31);
        mov(ah, al);
        cmos_read(0x30);
        movzx(eax, ax);
        ret();

        label("int15.extended");
        call("memory.extended");
        cmp(eax, 0xFC00);
        jbe(".fits");
        mov(ax, 0xFC00);
        label(".fits");
        mov(frame::ax(), ax);
        jmp("service.ok");

        label("int15.sizes");
        call("memory.split");
        mov(frame::ax(), ax);
        mov(frame::cx(), ax);
        mov(frame::bx(), dx);
        mov(frame::dx(), dx);
        jmp("service.ok");

        label("int15.sizes32");
        call("memory.split");
        mov(frame::eax(), eax);
        mov(frame::ecx(), eax);
        mov(frame::ebx(), edx);
        mov(frame::edx(), edx);
        jmp("service.ok");

        // EAX = KiB from 1 to 16 MiB, EDX = units of 64 KiB from there on.
        label("memory.split");
        call("memory.extended");
        xor(edx, edx);
        cmp(eax, 0x3C00);
        jbe(".done");
        mov(edx, eax);
        sub(edx, 0x3C00);
        shr(edx, 6);
        mov(eax, 0x3C00);
        label(".done");
        ret();
    }
}

fn map(rom: &mut Rom) {
    let place = |rom: &mut Rom, name| (rom.linear(name) - rom.linear(name).min(FLAT)) as i32;
    let (count, entries) = (place(rom, "memory.count"), place(rom, "memory.map"));
    asm! { rom;
        label("int15.map");
        cmp(edx, SMAP);
        jne("int15.unsupported");
        cmp(ecx, ENTRY_SIZE);
        jb("int15.unsupported");
        push(FLAT_SEGMENT);
        pop(ds);
        cmp(ebx, dword_ptr(count));
        jae("int15.unsupported");
        imul_3(si, bx, ENTRY_SIZE);
        add(si, entries);
        inc(ebx);
        cmp(ebx, dword_ptr(count));
        jb(".more");
        xor(ebx, ebx);
        label(".more");
        mov(frame::ebx(), ebx);
        mov(frame::eax(), SMAP);
        mov(frame::ecx(), ENTRY_SIZE);
        mov(cx, ENTRY_SIZE / 2);
        rep().movsw();
        jmp("service.ok");
    }
}

/// Function 87h: the caller's descriptors 2 and 3 name source and destination.
fn move_block(rom: &mut Rom) {
    asm! { rom;
        label("int15.move");
        // Interrupts stay off while segment registers have limits of protected mode.
        cli();
        in_byte(0x92);
        push(ax);
        or(al, 2);
        and(al, 0xFE);
        out(0x92, al);
        // The caller's table becomes the GDT; its first two descriptors are ours to fill.
        mov(ax, es);
        movzx(eax, ax);
        shl(eax, 4);
        movzx(edx, si);
        add(eax, edx);
        mov(dword_ptr(si + 10).es(), eax);
        mov(word_ptr(si + 8).es(), 0x2F);
        // Descriptor 4: this code; descriptor 5: the stack.
        mov(dword_ptr(si + 0x20).es(), 0xFFFF);
        mov(dword_ptr(si + 0x24).es(), 0x0000_9B0F);
        mov(dword_ptr(si + 0x28).es(), 0xFFFF);
        mov(ax, ss);
        movzx(eax, ax);
        shl(eax, 4);
        mov(dword_ptr(si + 0x2A).es(), eax);
        mov(word_ptr(si + 0x2D).es(), 0x0093);
        lgdt(ptr(si + 8).es());
        // The real-mode stack segment, for the way back.
        mov(dx, ss);
        mov(eax, cr0);
        or(al, 1);
        mov(cr0, eax);
        jmp_far_to(0x20, u32::from(rom.offset(".protected")));
        label(".protected");
        mov(ax, 0x28);
        mov(ss, ax);
        mov(ax, 0x10);
        mov(ds, ax);
        mov(ax, 0x18);
        mov(es, ax);
        movzx(ecx, cx);
        and(ecx, 0xFFFF);
        xor(esi, esi);
        xor(edi, edi);
        // Up to 32768 words: addresses reach 64 KiB, so 32-bit ones are used.
        shr(ecx, 1);
        db(&[0xF3, 0x67, 0x66, 0xA5]);
        adc(cx, cx);
        db(&[0xF3, 0x67, 0xA5]);
        // Real mode wants segments with its own limits.
        mov(ax, 0x28);
        mov(ds, ax);
        mov(es, ax);
        mov(eax, cr0);
        and(al, 0xFE);
        mov(cr0, eax);
        jmp_far_to(0xF000, u32::from(rom.offset(".real")));
        label(".real");
        mov(ss, dx);
        pop(ax);
        out(0x92, al);
        jmp("service.ok_ah0");
    }
}

/// Function 89h. The caller's descriptors are: none, GDT, IDT, DS, ES, SS, CS, and one for the BIOS to fill in. The stack goes on where it is,
/// which is where the caller has SS's descriptor begin.
fn protect(rom: &mut Rom) {
    const CODE: u32 = 0x30;
    const BIOS: u16 = 0x38;
    asm! { rom;
        label("int15.protect");
        cli();
        in_byte(0x92);
        or(al, 2);
        and(al, 0xFE);
        out(0x92, al);
        // The interrupt controllers get their vectors, and let nothing through.
        out_byte(0x20, 0x11);
        out_byte(0xA0, 0x11);
        mov(al, bl);
        out(0x21, al);
        mov(al, bh);
        out(0xA1, al);
        out_byte(0x21, 0x04);
        out_byte(0xA1, 0x02);
        out_byte(0x21, 0x01);
        out_byte(0xA1, 0x01);
        out_byte(0x21, 0xFF);
        out_byte(0xA1, 0xFF);
        mov(dword_ptr(si + i32::from(BIOS)).es(), 0xFFFF);
        mov(dword_ptr(si + i32::from(BIOS) + 4).es(), 0x0000_9B0F);
        mov(frame::cs(), CODE);
        mov(frame::ah(), 0);
        // 24 bits of their bases count, as they are in descriptors.
        lgdt(ptr(si + 0x08).es());
        lidt(ptr(si + 0x10).es());
        mov(eax, cr0);
        or(al, 1);
        mov(cr0, eax);
        jmp_far_to(BIOS, u32::from(rom.offset(".protected")));
        label(".protected");
        mov(ax, 0x18);
        mov(ds, ax);
        mov(ax, 0x20);
        mov(es, ax);
        mov(ax, 0x28);
        mov(ss, ax);
        popad();
        // Past the caller's ES and DS, which were segments; the flags go with the return address.
        add(sp, 4);
        clc();
        db(&[0xCA, 2, 0]);
    }
}
