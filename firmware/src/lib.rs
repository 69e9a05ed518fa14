//! ROM images of emu: a system BIOS and a VGA BIOS, as real x86 code that uses emulated hardware and fw_cfg only.
//!
//! The sources are in `rom/`, which the build script compiles and runs: it assembles the images with iced-x86's
//! `CodeAssembler` into `OUT_DIR`, each with a map of its symbols. The same images run under QEMU (`-bios`).
//!
//! ```text
//!  E0000  E000:0000  16-bit: POST, boot, boot menu, ROM monitor        (Section::E000)
//!  E8000             32-bit flat: PCI, ACPI, whatever POST needs       (Section::Flat)
//!  F0000  F000:0000  16-bit: run-time services, tables                 (Section::F000)
//!  FE000  F000:E000  entry points at their fixed addresses             (Rom::entry, Rom::fixed)
//!  C0000  C000:0000  the VGA BIOS: an image of its own                 (Section::C000)
//!  above             the ROMs that start kernels: images, too          (Section::C000)
//! ```
//!
//! # Adding a service
//!
//! 1. A file in `rom/services/`, headed by the interrupt's documented registers, with `pub fn emit(rom: &mut Rom)`; a line in
//!    `services/mod.rs`.
//! 2. In it, `asm! { rom; ... }`: instructions as statements, symbols by name, operands evaluated first.
//!
//!    ```text
//!    asm! { rom;
//!        service("int15");                        // saves registers, DS = 40h, BP = the caller's frame
//!        dispatch_ah(&[(0x88, ".extended")]);     // jumps; goes on for other functions
//!        mov(frame::ah(), 0x86);
//!        jmp("service.fail");                     // returns with CF set
//!        label(".extended");                      // "int15.extended": local to the last full name
//!        call("memory.extended_kib");             // a routine: plain label and ret
//!        mov(frame::ax(), ax);                    // what the caller gets
//!        jmp("service.ok");                       // returns with CF clear
//!        vector(0x15, "int15");                   // POST writes it into the vector table
//!    }
//!    rom.entry(0xF859, "int15");                  // a jump at the address that IBM published
//!    ```
//! 3. Data: `db`, `dw`, `dd`, `asciz`, `align`, `zeros` in line; `rom.text("...")` for a pooled string's offset. `rom.offset(name)`,
//!    `rom.at(name)` (as displacement: `byte_ptr(rom.at("table")).cs()`), `rom.segment(name)` and `rom.linear(name)` give addresses, of
//!    symbols in other sections and later ones too. The BDA and EBDA are in `rom/layout.rs`.
//! 4. Between sections: `call_far("name")` to a routine that ends with `retf`. In POST, EAX = `rom.linear("name")` and
//!    `call("flat.call")` call 32-bit code.
//! 5. `debug("text")` writes a line to port E9h (`-debugcon stdio`). `emu dev rom --map` shows where symbols are.
//!
//! Hardware interrupt handlers save what they use, send the end of interrupt, and register with `vector` as well. A routine
//! of E000 that initialises a service's hardware is called from `post/reset.rs`.

/// The system BIOS: physical E0000 to FFFFF, and the last 128 KiB below 4 GiB.
pub static BIOS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/bios.bin"));
/// The VGA BIOS, an option ROM for C0000.
pub static VGA_BIOS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/vgabios.bin"));
/// The option ROM that starts the Linux kernel which fw_cfg holds, for fw_cfg's `genroms/linuxboot.bin`.
pub static LINUXBOOT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/linuxboot.bin"));
/// The option ROM that starts the Multiboot or PVH kernel which fw_cfg holds, for fw_cfg's `genroms/multiboot.bin`.
pub static MULTIBOOT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/multiboot.bin"));
/// The 8x16 font of code page 437 in [`VGA_BIOS`]: 16 bytes to the glyph, one to the row, bit 7 leftmost.
///
/// Letters and symbols are Spleen 8x16's (copyright Frederic Cambus, BSD 2-Clause); lines are drawn by rule.
pub static FONT_8X16: &[u8; 4096] = include_bytes!(concat!(env!("OUT_DIR"), "/font_8x16.bin"));
/// Symbols of [`BIOS`], one to a line: `segment:offset name`, the 32-bit code's with segment 0.
pub static BIOS_MAP: &str = include_str!(concat!(env!("OUT_DIR"), "/bios.map"));
/// Symbols of [`VGA_BIOS`], likewise.
pub static VGA_BIOS_MAP: &str = include_str!(concat!(env!("OUT_DIR"), "/vgabios.map"));

#[cfg(test)]
mod tests;
