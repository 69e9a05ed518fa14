//! PCI: finds the functions of bus 0, gives their base address registers addresses, routes their interrupts, and sets up what the
//! PIIX3 and PIIX4 need.
//!
//! PCI Local Bus Specification 3.0, 6.2.5 (base addresses) and 3.2.2.3.2 (configuration mechanism 1); 82371SB and 82371AB
//! datasheets. Buses behind bridges are left alone; base addresses are below 4 GiB.

use crate::rom::asm::*;

/// The configuration address register's enable bit.
const ENABLE: u32 = 0x8000_0000;
/// Where I/O space for BARs starts, and where memory space ends: at the I/O APIC.
const IO_BASE: u32 = 0xC000;
const WINDOW_END: u32 = 0xFEC0_0000;
/// The window starts here, or at the second address with more than 3 GiB below 4 GiB.
const WINDOW: u32 = 0xC000_0000;
const HIGH_WINDOW: u32 = 0xE000_0000;
/// Command register: I/O, memory, bus master.
const COMMAND: u32 = 7;
const PIIX3_ISA: u32 = 0x7000_8086;
const PIIX3_IDE: u32 = 0x7010_8086;
const PIIX4_PM: u32 = 0x7113_8086;
/// What PIIX4's power management decodes: ACPI registers and SMBus, where QEMU's and emu's ACPI tables expect them.
const PM_BASE: u32 = 0x600;
const SMBUS_BASE: u32 = 0x700;
pub const SCI_IRQ: u32 = 9;
/// The IRQs of PIRQA# to PIRQD#, and edge/level control: 9, 10 and 11 are level-triggered.
pub const PIRQS: [u8; 4] = [10, 10, 11, 11];
const ELCR_HIGH: u8 = 0x0E;

pub fn emit_flat(rom: &mut Rom) {
    access(rom);
    setup(rom);
    bars(rom);
    chips(rom);
}

fn access(rom: &mut Rom) {
    asm! { rom;
        align(4);
        label("pci.window");
        dd(&[WINDOW]);
        // The next free memory address and port.
        label("pci.memory");
        dd(&[0]);
        label("pci.ports");
        dd(&[0]);
        label("pci.pirqs");
        db(&PIRQS);

        // Reads the register of configuration address EBX into EAX. Changes EDX.
        label("pci.read");
        mov(eax, ebx);
        out_eax(0xCF8);
        in_eax(0xCFC);
        ret();
        // Writes EAX to it. Changes EDX.
        label("pci.write");
        push(eax);
        mov(eax, ebx);
        out_eax(0xCF8);
        pop(eax);
        out_eax(0xCFC);
        ret();
    }
}

fn setup(rom: &mut Rom) {
    asm! { rom;
        // Also tells, by CF set, that there is no PCI.
        label("pci.setup");
        mov(eax, WINDOW);
        cmp(dword_ptr(rom.at("memory.end")), eax);
        jbe(".window");
        mov(eax, HIGH_WINDOW);
        label(".window");
        mov(dword_ptr(rom.at("pci.window")), eax);
        mov(dword_ptr(rom.at("pci.memory")), eax);
        mov(dword_ptr(rom.at("pci.ports")), IO_BASE);
        mov(ebx, ENABLE);
        call("pci.read");
        inc(eax);
        jz(".done");
        // EBX is the configuration address of the function's register 0 in all of this.
        label(".function");
        call("pci.read");
        cmp(ax, -1);
        je(".absent");
        push(eax);
        call("pci.bars");
        pop(eax);
        call("pci.chip");
        mov(bl, 0x04);
        call("pci.read");
        or(eax, COMMAND);
        movzx(eax, ax);
        call("pci.write");
        // A single-function device answers for function 0 only.
        test(bh, 7);
        jnz(".next");
        mov(bl, 0x0C);
        call("pci.read");
        test(eax, 1 << 23);
        jnz(".next");
        label(".absent");
        test(bh, 7);
        jnz(".next");
        or(bh, 7);
        label(".next");
        mov(bl, 0);
        inc(bh);
        jnz(".function");
        out_byte(0xA0, 0x0A);
        xor(al, al);
        out_al(0x4D0);
        mov(al, u32::from(ELCR_HIGH));
        out_al(0x4D1);
        label(".done");
        ret();
    }
}

fn bars(rom: &mut Rom) {
    asm! { rom;
        // Gives the function's base address registers addresses, and its interrupt pin a line.
        label("pci.bars");
        mov(bl, 0x0C);
        call("pci.read");
        shr(eax, 16);
        and(al, 0x7F);
        // Number of the register behind the last one: 6 of them, of a bridge 2.
        mov(ecx, 0x28);
        cmp(al, 0);
        je(".header");
        mov(ecx, 0x18);
        label(".header");
        mov(bl, 0x10);
        label(".bar");
        push(ecx);
        call("pci.bar");
        pop(ecx);
        add(bl, 4);
        cmp(bl, cl);
        jb(".bar");
        cmp(cl, 0x28);
        jne(".interrupt");
        // The ROM stays disabled.
        mov(bl, 0x30);
        mov(eax, 0xFFFF_F800u32);
        call("pci.write");
        call("pci.read");
        and(eax, 0xFFFF_F800u32 as i32);
        jz(".interrupt");
        neg(eax);
        mov(esi, rom.linear("pci.memory"));
        mov(ecx, WINDOW_END);
        call("pci.place");
        call("pci.write");
        label(".interrupt");
        // PIRQ = device + pin - 1, the device's number counted from 1, as the PC's slots are wired.
        mov(bl, 0x3C);
        call("pci.read");
        movzx(ecx, ah);
        jecxz(".done");
        movzx(edx, bh);
        shr(edx, 3);
        lea(ecx, ptr(ecx + edx - 2));
        and(ecx, 3);
        mov(al, byte_ptr(ecx + rom.at("pci.pirqs")));
        call("pci.write");
        label(".done");
        mov(bl, 0);
        ret();

        // One base address register, EBX; BL moves on to the upper half of a 64-bit one.
        label("pci.bar");
        mov(eax, -1i32 as u32);
        call("pci.write");
        call("pci.read");
        test(eax, eax);
        jz(".done");
        test(al, 1);
        jnz(".io");
        mov(ecx, eax);
        and(eax, -16);
        push(ecx);
        jz(".place");
        neg(eax);
        mov(esi, rom.linear("pci.memory"));
        mov(ecx, WINDOW_END);
        call("pci.place");
        label(".place");
        call("pci.write");
        pop(ecx);
        and(cl, 6);
        cmp(cl, 4);
        jne(".done");
        add(bl, 4);
        xor(eax, eax);
        jmp("pci.write");
        label(".io");
        and(eax, -4);
        or(eax, 0xFFFF_0000u32 as i32);
        neg(eax);
        mov(esi, rom.linear("pci.ports"));
        mov(ecx, 0x1_0000);
        call("pci.place");
        jmp("pci.write");
        label(".done");
        ret();

        // EAX = an address for EAX bytes, a power of two, from the space that ESI counts and that ends at ECX; 0 if it is full.
        // Changes EDX, ECX.
        label("pci.place");
        mov(edx, dword_ptr(esi));
        dec(eax);
        add(edx, eax);
        jc(".full");
        not(eax);
        and(edx, eax);
        neg(eax);
        add(eax, edx);
        jc(".full");
        cmp(eax, ecx);
        ja(".full");
        mov(dword_ptr(esi), eax);
        mov(eax, edx);
        ret();
        label(".full");
        xor(eax, eax);
        ret();
    }
}

fn chips(rom: &mut Rom) {
    asm! { rom;
        // What chips need beyond addresses; EAX is the function's identity.
        label("pci.chip");
        cmp(eax, PIIX3_ISA);
        je(".isa");
        cmp(eax, PIIX3_IDE);
        je(".ide");
        cmp(eax, PIIX4_PM);
        je(".pm");
        ret();
        label(".isa");
        mov(bl, 0x60);
        mov(eax, u32::from_le_bytes(PIRQS));
        jmp("pci.write");
        label(".ide");
        // Both channels decode their ports.
        mov(bl, 0x40);
        mov(eax, 0x8000_8000u32);
        jmp("pci.write");
        label(".pm");
        mov(bl, 0x3C);
        call("pci.read");
        mov(al, SCI_IRQ);
        call("pci.write");
        mov(bl, 0x40);
        mov(eax, PM_BASE | 1);
        call("pci.write");
        mov(bl, 0x80);
        call("pci.read");
        or(al, 1);
        call("pci.write");
        mov(bl, 0x90);
        mov(eax, SMBUS_BASE | 1);
        call("pci.write");
        // SMBus host controller on, with the interrupt of the SCI.
        mov(bl, 0xD0);
        call("pci.read");
        and(eax, 0xFF00_FFFFu32 as i32);
        or(eax, 0x0009_0000);
        jmp("pci.write");
    }
}
