//! `-boot` and the monitor's `boot_set` under the built-in firmware: which of two images starts.

mod guest;

use guest::{Emulator, temporary};
use iced_x86::code_asm::{CodeAssembler, al, bl, dx};
use std::path::PathBuf;
use std::process::Command;

/// A boot sector that prints a word on COM1 and waits.
fn sector(word: &str, len: usize) -> Vec<u8> {
    let mut a = CodeAssembler::new(16).unwrap();
    let (mut send, mut busy, mut wait) = (a.create_label(), a.create_label(), a.create_label());
    for character in word.bytes().chain(*b"\n") {
        a.mov(bl, i32::from(character)).unwrap();
        a.call(send).unwrap();
    }
    a.set_label(&mut wait).unwrap();
    a.hlt().unwrap();
    a.jmp(wait).unwrap();
    a.set_label(&mut send).unwrap();
    a.mov(dx, 0x3fd).unwrap();
    a.set_label(&mut busy).unwrap();
    a.in_(al, dx).unwrap();
    a.test(al, 0x20).unwrap();
    a.je(busy).unwrap();
    a.mov(dx, 0x3f8).unwrap();
    a.mov(al, bl).unwrap();
    a.out(dx, al).unwrap();
    a.ret().unwrap();
    let mut code = a.assemble(0x7c00).unwrap();
    code.resize(510, 0);
    code.extend([0x55, 0xaa]);
    code.resize(len, 0);
    code
}

struct Images([PathBuf; 2]);

impl Images {
    fn new(name: &str) -> Images {
        let [disk, diskette] = ["disk", "diskette"].map(|kind| temporary(&format!("{name}-{kind}.img")));
        std::fs::write(&disk, sector("from the disk", 1 << 20)).unwrap();
        std::fs::write(&diskette, sector("from the diskette", 1_474_560)).unwrap();
        Images([disk, diskette])
    }

    fn start(&self, arguments: &[&str]) -> Emulator {
        let mut command = Command::new(env!("CARGO_BIN_EXE_emu"));
        command.args(guest::accelerator());
        command.args(["-m", "16", "-display", "none", "-serial", "mon:stdio", "-hda"]).arg(&self.0[0]);
        command.arg("-fda").arg(&self.0[1]).args(arguments);
        Emulator::spawn(command, None)
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        self.0.iter().for_each(|path| drop(std::fs::remove_file(path)));
    }
}

#[test]
fn boot_order_comes_from_the_command_line_and_from_the_monitor() {
    let images = Images::new("boot-order");
    let mut emu = images.start(&["-boot", "order=ca,once=a"]);
    emu.output.expect("from the diskette\n");
    emu.type_keys(b"\x01csystem_reset\r");
    emu.output.expect("from the disk\n");
    emu.type_keys(b"boot_set a\r");
    emu.output.expect("boot device list now set to a\r\n(qemu) ");
    emu.type_keys(b"boot_set cd\rboot_set ac\rsystem_reset\r");
    emu.output.expect("from the diskette\n");
    emu.type_keys(b"quit\r");
    assert_eq!(emu.wait(), Some(0));
}
