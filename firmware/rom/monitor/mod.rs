//! The ROM monitor: what a machine without anything to boot offers, on the screen and on COM1 at once.
//!
//! `monitor.run` (far, from INT 18h) does not return. Numbers are hexadecimal; addresses are linear or segment:offset. DS is the EBDA's
//! segment throughout, where the line and what it works on are kept (`state`); SI is where the rest of the line is.
//!
//! Deliberately absent: a history, disassembly.

use super::asm::*;
use super::layout::{BDA_SEGMENT, bda, monitor as state};

mod banner;
mod commands;
mod console;
mod machine;

/// Colours: text, heading, prompt and names, errors.
pub const TEXT: u32 = 0x07;
const HEADING: u32 = 0x1F;
pub const BRIGHT: u32 = 0x0F;
const ERROR: u32 = 0x0C;

/// Commands: name, symbol, parameters and what it does.
const COMMANDS: [(&str, &str, &str); 18] = [
    ("help", "monitor.help", "                       this list"),
    ("dump", "monitor.dump", "[ADDRESS [LENGTH]]     bytes of memory, on from the last ones"),
    ("edit", "monitor.edit", "ADDRESS BYTE...        writes to memory"),
    ("inb", "monitor.inb", "PORT                   reads a byte from a port"),
    ("inw", "monitor.inw", "PORT                   ... a word"),
    ("inl", "monitor.inl", "PORT                   ... a doubleword"),
    ("outb", "monitor.outb", "PORT VALUE             writes a byte to a port"),
    ("outw", "monitor.outw", "PORT VALUE             ... a word"),
    ("outl", "monitor.outl", "PORT VALUE             ... a doubleword"),
    ("cpuid", "monitor.cpuid", "[LEAF [SUBLEAF]]       what the processor is"),
    ("pci", "monitor.pci", "[BUS:DEVICE.FUNCTION]  PCI functions, or its registers"),
    ("acpi", "monitor.acpi", "                       ACPI tables"),
    ("e820", "monitor.e820", "                       the memory map"),
    ("time", "monitor.time", "                       date and time"),
    ("cls", "monitor.cls", "                       clears the screen"),
    ("boot", "monitor.boot", "                       tries all boot devices again"),
    ("reboot", "monitor.reboot", "                       resets the machine"),
    ("poweroff", "monitor.poweroff", "                       switches it off"),
];

pub fn emit(rom: &mut Rom) {
    asm! { rom;
        label("monitor.run");
        cld();
        sti();
        push(i32::from(BDA_SEGMENT));
        pop(ds);
        mov(ds, word_ptr(bda::EBDA));
        mov(dword_ptr(state::NEXT), 0);
        call("monitor.line");
        call("monitor.banner");
        label(".line");
        colour(BRIGHT);
        say("\r\n> ");
        colour(TEXT);
        call("monitor.read");
        mov(si, state::LINE);
        call("monitor.skip");
        jz(".line");
        push(u32::from(rom.offset(".line")) as i32);
    }
    for (name, symbol, _) in COMMANDS {
        let next = rom.fresh();
        let text = rom.text(name);
        asm! { rom;
            mov(di, u32::from(text));
            call("monitor.match");
            jne(&next);
            jmp(symbol);
            label(&next);
        }
    }
    asm! { rom;
        label("monitor.wrong");
        colour(ERROR);
        say("? ");
        mov(si, state::LINE);
        call("monitor.text_ds");
        colour(TEXT);
        say("   (help lists the commands)\r\n");
        ret();

        label("monitor.help");
    }
    for (name, _, text) in COMMANDS {
        let text = format!("{text}\r\n");
        asm! { rom;
            colour(BRIGHT);
            say(&format!("  {name:10}"));
            colour(TEXT);
            say(&text);
        }
    }
    asm! { rom;
        say("Numbers are hexadecimal. An ADDRESS is linear (B8000) or SEGMENT:OFFSET.\r\n");
        ret();

        // COM1: 9600 baud, 8 bits, no parity. Changes AX, DX.
        label("monitor.line");
        mov(ax, 0x00E3);
        xor(dx, dx);
        int(0x14);
        ret();
    }
    console::emit(rom);
    banner::emit(rom);
    commands::emit(rom);
    machine::emit(rom);
}

impl Rom {
    /// Writes a text in the current colour. Keeps all registers.
    pub fn say(&mut self, text: &str) -> Emitted {
        let text = self.text(text);
        asm! { self;
            push(si);
            mov(si, u32::from(text));
            call("monitor.text");
            pop(si);
        }
        Ok(())
    }

    /// What is written from now on has this attribute on the screen.
    pub fn colour(&mut self, attribute: u32) -> Emitted {
        self.mov(byte_ptr(state::COLOUR), attribute)
    }
}
