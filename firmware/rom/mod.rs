//! The sources of the ROM images: what is in them, in which section, and how sections make an image.
//!
//! | file | section | holds |
//! |---|---|---|
//! | `asm/` | | the assembler layer |
//! | `layout.rs` | | BDA, EBDA, addresses in low memory |
//! | `post/` | E000, Flat | reset, chipset, memory map, PCI, ACPI, SMBIOS, MultiProcessor tables, option ROMs and the memory that they ask for, and the order of it all |
//! | `boot/` | E000 | INT 18h, 19h, the boot order, the boot menu |
//! | `monitor/` | E000 | the ROM monitor |
//! | `services/int05.rs`, `int11.rs`, `int12.rs`, `int15.rs`, `apm.rs`, `int1a.rs`, `pci_bios.rs`, `pnp.rs` | F000, Flat | print screen, system, memory, APM, pointing device, clock, PCI BIOS |
//! | `services/disk/` | F000 | INT 13h: hard disks, CD-ROM drives, El Torito, floppy drives; `disk.setup` at POST |
//! | `services/keyboard.rs`, `mouse.rs`, `int14.rs`, `timer.rs` | F000 | INT 09h, 16h; 15h AH=C2h, 74h; 14h, 17h; 08h, 1Ch, 70h |
//! | `vga/` | C000 | the VGA BIOS |
//! | `linuxboot.rs`, `multiboot.rs` | C000 | the option ROMs that start the kernel of `-kernel`: a Linux kernel, a Multiboot or PVH kernel |
//!
//! POST calls `timer.setup`, `keyboard.setup`, `ports.setup` and `disk.setup` far, with interrupts off, DS = ES = SS = 0, registers free. With
//! nothing to boot, INT 18h calls `monitor.run`.

#[macro_use]
mod asm;
mod boot;
mod debug;
mod layout;
mod linuxboot;
mod monitor;
mod multiboot;
mod post;
mod services;
mod vga;

pub use vga::FONT_8X16;

use asm::{Image, Rom, Section};

/// Size of the system BIOS: E0000 to FFFFF.
const BIOS_SIZE: usize = 0x20000;
/// Where the two segments and the 32-bit code are in it.
const E000: usize = 0;
const FLAT: usize = 0x8000;
const F000: usize = 0x10000;

/// Option ROMs are multiples of this.
const OPTION_ROM_BLOCK: usize = 512;

/// The system BIOS.
pub fn bios() -> Image {
    let emit = |rom: &mut Rom| {
        rom.section(Section::F000, |rom| {
            services::emit(rom);
            debug::emit(rom);
            boot::emit_entry(rom);
            post::tables::emit_pool(rom);
            post::mp::emit_tables(rom);
        });
        rom.section(Section::E000, |rom| {
            post::emit(rom);
            boot::emit(rom);
            monitor::emit(rom);
        });
        rom.section(Section::Flat, |rom| {
            post::emit_flat(rom);
            boot::emit_flat(rom);
            services::emit_flat(rom);
        });
        // Last, because it lists what the others have registered.
        rom.section(Section::F000, post::ivt::emit_table);
    };
    Rom::assemble(emit, |sections, fixed| {
        let mut image = vec![0; BIOS_SIZE];
        for (section, bytes) in sections {
            let start = match section {
                Section::F000 => F000,
                Section::E000 => E000,
                Section::Flat => FLAT,
                Section::C000 => panic!("the system BIOS has no section {section:?}"),
            };
            image[start..start + bytes.len()].copy_from_slice(bytes);
        }
        let mut taken = 0;
        let mut fixed = fixed.to_vec();
        fixed.sort();
        for (offset, bytes) in fixed {
            let start = usize::from(offset);
            assert!(start >= taken, "what is fixed at F000:{offset:04X} overlaps what is before it");
            taken = start + bytes.len();
            image[F000 + start..F000 + taken].copy_from_slice(&bytes);
        }
        image
    })
}

/// The VGA BIOS: an option ROM.
pub fn vgabios() -> Image {
    option_rom(vga::emit)
}

/// The option ROM that starts a kernel from fw_cfg.
pub fn linuxboot() -> Image {
    option_rom(linuxboot::emit)
}

/// The option ROM that starts a Multiboot or PVH kernel from fw_cfg.
pub fn multiboot() -> Image {
    option_rom(multiboot::emit)
}

fn option_rom(emit: impl Fn(&mut Rom)) -> Image {
    Rom::assemble(
        |rom| rom.section(Section::C000, &emit),
        |sections, _| {
            let mut image = sections[0].1.clone();
            // One byte more at least, for the checksum.
            image.resize((image.len() + 1).next_multiple_of(OPTION_ROM_BLOCK), 0);
            let blocks = image.len() / OPTION_ROM_BLOCK;
            image[2] = u8::try_from(blocks).expect("an option ROM is at most 127.5 KiB");
            let sum = image.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
            *image.last_mut().expect("it is not empty") = sum.wrapping_neg();
            image
        },
    )
}
