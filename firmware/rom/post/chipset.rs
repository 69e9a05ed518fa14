//! Chip set and processor: shadow RAM, interrupt controllers, timer, clock, local APIC, MTRRs.
//!
//! 82441FX datasheet, PAM0 to PAM6 (59h to 5Fh); 8259A, 8254, MC146818 datasheets; SDM Vol. 3A 11.11 (MTRRs), 10.5.1 (LVT).
//! Processors other than the first wait for an operating system to start them and keep their MTRRs as at reset.

use crate::rom::asm::*;

/// The configuration address of the host bridge's register 0, and its identity on an i440FX.
const HOST_BRIDGE: u32 = 0x8000_0000;
const I440FX: u32 = 0x1237_8086;
/// The ROM's other copy, below 4 GiB, is this far above the one below 1 MiB.
const HIGH_COPY: u32 = 0xFFF0_0000;
const ROM: u32 = 0xE_0000;
const ROM_SIZE: u32 = 0x2_0000;
/// What CPUID leaf 1 says in EDX.
const CPUID_APIC: u32 = 1 << 9;
const CPUID_MTRR: u32 = 1 << 12;
const LOCAL_APIC: u32 = 0xFEE0_0000;

pub fn emit_flat(rom: &mut Rom) {
    shadow(rom);
    controllers(rom);
    processor(rom);
}

fn shadow(rom: &mut Rom) {
    asm! { rom;
        // Makes C0000 to FFFFF RAM, with the ROM's copy in its upper half, if the host bridge can.
        label("chipset.shadow");
        mov(eax, HOST_BRIDGE);
        out_eax(0xCF8);
        in_eax(0xCFC);
        cmp(eax, I440FX as i32);
        jne(".done");
        mov(eax, rom.linear(".high").wrapping_add(HIGH_COPY));
        jmp(eax);
        // Here the code runs from the high copy, as the low one is about to go away.
        label(".high");
        mov(eax, HOST_BRIDGE | 0x58);
        out_eax(0xCF8);
        mov(al, 0x30);
        out_al(0xCFD);
        mov(al, 0x33);
        out_al(0xCFE);
        out_al(0xCFF);
        mov(eax, HOST_BRIDGE | 0x5C);
        out_eax(0xCF8);
        mov(eax, 0x3333_3333);
        out_eax(0xCFC);
        mov(esi, ROM.wrapping_add(HIGH_COPY));
        mov(edi, ROM);
        mov(ecx, ROM_SIZE / 4);
        cld();
        rep().movsd();
        mov(eax, rom.linear(".done"));
        jmp(eax);
        label(".done");
        ret();

        // Makes E0000 to FFFFF read-only; option ROMs keep their RAM, which some of them write to.
        label("chipset.lock");
        mov(eax, HOST_BRIDGE);
        out_eax(0xCF8);
        in_eax(0xCFC);
        cmp(eax, I440FX as i32);
        jne(".done");
        mov(eax, HOST_BRIDGE | 0x58);
        out_eax(0xCF8);
        mov(al, 0x10);
        out_al(0xCFD);
        mov(eax, HOST_BRIDGE | 0x5C);
        out_eax(0xCF8);
        mov(al, 0x11);
        out_al(0xCFE);
        out_al(0xCFF);
        label(".done");
        ret();
    }
}

fn controllers(rom: &mut Rom) {
    asm! { rom;
        label("chipset.setup");
        // A20 open.
        in_byte(0x92);
        or(al, 2);
        and(al, 0xFE);
        out(0x92, al);
        // 8259s at vectors 08h and 70h; everything masked but the cascade.
        out_byte(0x20, 0x11);
        out_byte(0xA0, 0x11);
        out_byte(0x21, 0x08);
        out_byte(0xA1, 0x70);
        out_byte(0x21, 0x04);
        out_byte(0xA1, 0x02);
        out_byte(0x21, 0x01);
        out_byte(0xA1, 0x01);
        out_byte(0x21, 0xFB);
        out_byte(0xA1, 0xFF);
        // 8254: counter 0 at 18.2 Hz, counter 1 as for refresh.
        out_byte(0x43, 0x34);
        out_byte(0x40, 0);
        out_byte(0x40, 0);
        out_byte(0x43, 0x54);
        out_byte(0x41, 0x12);
        // 8237s: on; the second cascades to the first.
        xor(al, al);
        out(0x0D, al);
        out(0xDA, al);
        out_byte(0xD6, 0xC0);
        out_byte(0xD4, 0);
        // Clock: 32768 Hz base, 1024 Hz rate; BCD, 24 hours, no interrupts. Reading C acknowledges what was pending.
        out_byte(0x70, 0x0A);
        out_byte(0x71, 0x26);
        out_byte(0x70, 0x0B);
        out_byte(0x71, 0x02);
        cmos_read(0x0C);
        cmos_read(0x0D);
        ret();
    }
}

fn processor(rom: &mut Rom) {
    asm! { rom;
        // The local APIC in virtual wire mode, and MTRRs: all is write-back but video memory and the PCI window.
        label("chipset.processor");
        probe_cpuid();
        jz(".done");
        mov(eax, 1);
        cpuid();
        test(edx, CPUID_APIC);
        jz(".mtrr");
        mov(dword_ptr(LOCAL_APIC + 0xF0), 0x1FF);
        mov(dword_ptr(LOCAL_APIC + 0x350), 0x700);
        mov(dword_ptr(LOCAL_APIC + 0x360), 0x400);
        label(".mtrr");
        test(edx, CPUID_MTRR);
        jz(".done");
        mov(ecx, 0x2FF);
        xor(eax, eax);
        xor(edx, edx);
        wrmsr();
        // 00000 to 9FFFF write-back, A0000 to BFFFF uncached, C0000 to FFFFF write-protected.
        mov(eax, 0x0606_0606);
        mov(edx, eax);
        mov(ecx, 0x250);
        wrmsr();
        mov(ecx, 0x258);
        wrmsr();
        xor(eax, eax);
        xor(edx, edx);
        mov(ecx, 0x259);
        wrmsr();
        mov(eax, 0x0505_0505);
        mov(edx, eax);
        mov(ecx, 0x268);
        label(".fixed");
        wrmsr();
        inc(ecx);
        cmp(ecx, 0x270);
        jb(".fixed");
        // Physical address width: 36 bits unless leaf 80000008h tells.
        mov(eax, 0x8000_0000u32);
        cpuid();
        cmp(eax, 0x8000_0008u32 as i32);
        mov(eax, 36);
        jb(".width");
        mov(eax, 0x8000_0008u32);
        cpuid();
        movzx(eax, al);
        label(".width");
        lea(ecx, ptr(eax - 32));
        mov(esi, 1);
        shl(esi, cl);
        dec(esi);
        // The first variable range: from the window's start to 4 GiB, uncached.
        mov(eax, dword_ptr(rom.at("pci.window")));
        xor(edx, edx);
        mov(ecx, 0x200);
        wrmsr();
        or(eax, 0x800);
        mov(edx, esi);
        mov(ecx, 0x201);
        wrmsr();
        mov(eax, 0xC06);
        xor(edx, edx);
        mov(ecx, 0x2FF);
        wrmsr();
        label(".done");
        ret();
    }
}
