//! The ROM monitor under QEMU, where it is installed: what it answers to keys on COM1.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

#[test]
fn monitor_reads_writes_and_tells_on_com1() {
    const QEMU: &str = "qemu-system-x86_64";
    if Command::new(QEMU).arg("-version").output().is_err() {
        eprintln!("{QEMU} is not installed: nothing is tested");
        return;
    }
    let bios = std::env::temp_dir().join(format!("emu-monitor-{}.bin", std::process::id()));
    std::fs::write(&bios, firmware::BIOS).unwrap();
    let mut qemu = Command::new("timeout")
        .args(["60", QEMU, "-accel", "tcg", "-nodefaults", "-display", "none", "-m", "64", "-serial", "stdio", "-bios"])
        .arg(&bios)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut keys = qemu.stdin.take().unwrap();
    let mut output = qemu.stdout.take().unwrap();
    let mut shown = String::new();
    let mut until_prompt = || {
        shown.clear();
        while !shown.ends_with("\n> ") {
            let mut byte = [0];
            assert_eq!(output.read(&mut byte).unwrap(), 1, "QEMU has ended: {shown}");
            shown.push(char::from(byte[0]));
        }
        shown.clone()
    };
    assert!(until_prompt().contains("There is nothing to boot"));
    let mut answer = |line: &str| {
        keys.write_all(format!("{line}\r").as_bytes()).unwrap();
        until_prompt()
    };
    answer("edit 123456 12 34 ab");
    assert!(answer("dump 123456 3").contains("00123456  12 34 AB"));
    assert!(answer("dump f000:fff0 5").contains("000FFFF0  EA"));
    assert!(answer("pci").contains("00:00.0  8086:1237  0600  host bridge"));
    assert!(answer("e820").contains("0000000000000000  000000000009F3FF  RAM"));
    assert!(answer("outb 80 55").ends_with("\r\n\r\n> "));
    assert!(answer("inb 10000").contains("? inb 10000"));
    assert!(answer("nonsense").contains("? nonsense"));
    keys.write_all(b"poweroff\r").unwrap();
    assert!(qemu.wait().unwrap().success(), "it switches itself off");
    std::fs::remove_file(&bios).unwrap();
}
