//! Every option that `-help` lists does its work with the binary: each is given to a guest that must run with it.

mod guest;

use guest::{Emulator, KernelFile, Stream, temporary};
use iced_x86::code_asm::{CodeAssembler, ah, al, ax, dx};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The options that `-help` lists, without aliases and dashes.
fn listed() -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_emu")).arg("-help").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter(|line| line.starts_with('-'));
    let name = |line: &str| {
        line.split("  ").next().unwrap().split(" or ").last().unwrap().split(' ').next().unwrap()[1..].to_string()
    };
    lines.map(name).collect()
}

/// A value for `option` that a guest started by `-kernel` runs with; `None` if the option is none for such a guest.
fn sample(option: &str, folder: &Path) -> Option<Vec<String>> {
    let file = |name: &str| {
        let path = folder.join(name);
        if !path.exists() {
            fs::write(&path, vec![0; 1_474_560]).unwrap();
        }
        path.display().to_string()
    };
    let value = match option {
        // Tested by themselves: they end at once, or boot something else.
        "help" | "version" | "kernel" | "daemonize" | "bios" | "S" | "display" | "full-screen" | "serial" => {
            return None;
        }
        "nodefaults" | "snapshot" | "no-reboot" | "no-shutdown" => return Some(vec![format!("-{option}")]),
        // With a serial port of the test's own, there is only the monitor left for the terminal.
        "nographic" => return Some(vec!["-nographic".into(), "-monitor".into(), "none".into()]),
        "machine" => "pc,accel=tcg".into(),
        "cpu" => "max,-sse4_2".into(),
        "accel" => "tcg".into(),
        "smp" => "1".into(),
        "m" => "32".into(),
        "name" => "guest7,process=guest7".into(),
        "device" => "isa-debug-exit,iobase=0xf4,iosize=0x04".into(),
        "global" => "VGA.vgamem_mb=8".into(),
        "uuid" => "550e8400-e29b-41d4-a716-446655440000".into(),
        "fda" | "fdb" | "hda" | "hdb" | "hdc" | "hdd" | "cdrom" => file(option),
        "drive" => format!("file={},if=ide,index=1,media=disk,format=raw,cache=unsafe", file("drive")),
        "vga" => "none".into(),
        "audiodev" => format!("wav,id=snd,path={}", folder.join("sound.wav").display()),
        "nic" => "user,model=ne2k_pci,mac=52:54:00:00:00:01".into(),
        "net" => "none".into(),
        "netdev" => {
            return Some(["-netdev", "user,id=n", "-device", "ne2k_pci,netdev=n"].map(String::from).to_vec());
        }
        "object" => {
            let dump = format!("filter-dump,id=dump,netdev=dumped,file={}", folder.join("pcap").display());
            return Some(["-nic", "user,id=dumped,model=ne2k_pci", "-object", &dump].map(String::from).to_vec());
        }
        "chardev" => "null,id=spare".into(),
        "parallel" => format!("file:{}", folder.join("printer").display()),
        "monitor" | "qmp" | "qmp-pretty" => format!("unix:{},server=on,wait=off", folder.join(option).display()),
        "mon" => return Some(vec!["-chardev".into(), "null,id=nobody".into(), "-mon".into(), "chardev=nobody".into()]),
        "debugcon" => "null".into(),
        "L" => folder.display().to_string(),
        "boot" => "order=dc,menu=off".into(),
        "fw_cfg" => "name=opt/test,string=mango".into(),
        "smbios" => "type=1,product=mango".into(),
        "append" => "mango".into(),
        "initrd" => file("initrd"),
        "action" => "reboot=reset".into(),
        "d" => "guest_errors".into(),
        "D" => folder.join("log").display().to_string(),
        "pidfile" => folder.join("pid").display().to_string(),
        "rtc" => "base=2026-01-02T03:04:05".into(),
        "icount" => "shift=0,sleep=off".into(),
        "echr" => "2".into(),
        other => panic!("-{other} is listed, and nobody tests it"),
    };
    Some(vec![format!("-{option}"), value])
}

#[test]
fn guest_runs_with_each_option_that_help_lists() {
    let folder = temporary("options");
    fs::create_dir_all(&folder).unwrap();
    let options = listed();
    assert!(options.len() > 40 && options.contains(&"machine".into()) && options.contains(&"m".into()), "{options:?}");
    for option in options {
        let Some(words) = sample(&option, &folder) else { continue };
        println!("{words:?}");
        let mut arguments: Vec<&str> = words.iter().map(String::as_str).collect();
        arguments.extend(["-serial", "stdio"]);
        let mut emu = Emulator::start(&format!("option-{option}"), &arguments);
        emu.output.expect("ready\n");
        emu.type_keys(b"mango");
        emu.output.expect("mango");
        let stopped = option == "no-shutdown";
        if !stopped {
            emu.type_keys(b"q");
            assert_eq!(emu.wait(), Some(0), "-{option}");
            let Emulator { errors, .. } = &mut emu;
            let errors = String::from_utf8(std::mem::replace(errors, Stream::of(&b""[..])).rest()).unwrap();
            // Who does not say that a disk is raw is told that it was taken for that.
            let guessed = matches!(option.as_str(), "fda" | "fdb" | "hda" | "hdb" | "hdc" | "hdd");
            match guessed {
                true => {
                    let warning = format!("emu: warning: the image format of '{}' was not specified", words[1]);
                    assert!(errors.starts_with(&warning) && errors.lines().count() == 1, "-{option}: {errors}");
                }
                false => assert_eq!(errors, "", "-{option}"),
            }
        }
    }
    fs::remove_dir_all(folder).unwrap();
}

/// A boot sector that prints by INT 17h and powers off.
fn printing_sector() -> Vec<u8> {
    let mut a = CodeAssembler::new(16).unwrap();
    for character in b"mango\n" {
        a.xor(dx, dx).unwrap();
        a.mov(ah, 0).unwrap();
        a.mov(al, i32::from(*character)).unwrap();
        a.int(0x17).unwrap();
    }
    a.mov(dx, 0x604).unwrap();
    a.mov(ax, 0x2000).unwrap();
    a.out(dx, ax).unwrap();
    let mut code = a.assemble(0x7c00).unwrap();
    code.resize(510, 0);
    code.extend([0x55, 0xaa]);
    code
}

#[test]
fn parallel_port_prints_what_the_bios_is_asked_to_print() {
    let (disk, printer): (PathBuf, PathBuf) = (temporary("printing.img"), temporary("printer.txt"));
    fs::write(&disk, printing_sector()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_emu"));
    command.args(["-m", "16", "-display", "none", "-hda"]).arg(&disk);
    command.args(["-parallel", &format!("file:{}", printer.display())]);
    assert_eq!(Emulator::spawn(command, None).wait(), Some(0));
    assert_eq!(fs::read_to_string(&printer).unwrap(), "mango\n");
    fs::remove_file(disk).unwrap();
    fs::remove_file(printer).unwrap();
}

#[test]
fn second_parallel_port_is_refused() {
    let kernel = KernelFile::new("two-printers");
    let mut command = Command::new(env!("CARGO_BIN_EXE_emu"));
    command.arg("-kernel").arg(&kernel.0).args(["-parallel", "null", "-parallel", "null"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "emu: -parallel null: a PC has 1 parallel port\n");
}
