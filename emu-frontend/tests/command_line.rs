//! What the binary says to wrong and to harmless command lines: one line, the right stream, the right status.

mod guest;

use guest::temporary;
use std::process::{Command, Output, Stdio};

fn emu(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_emu"));
    command.args(arguments).stdin(Stdio::null()).output().expect("emu starts")
}

/// The one line on stderr of a command line that must fail with status 1.
fn refusal(arguments: &[&str]) -> String {
    let output = emu(arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
    assert_eq!(text.matches('\n').count(), 1, "{arguments:?}: {text}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    let line = text.trim_end().strip_prefix("emu: ").unwrap_or_else(|| panic!("{arguments:?}: {text}"));
    line.to_string()
}

#[test]
fn wrong_options_are_refused_in_one_line_that_names_option_and_value() {
    for (arguments, line) in [
        (&["-bogus"][..], "-bogus: invalid option"),
        (&["-kernal", "x"], "-kernal: invalid option; nearest is -kernel"),
        (&["-kernel"], "-kernel: requires an argument"),
        (&["-m", "0"], "-m 0: guest RAM must be from 1M to 1T"),
        (&["-m", "9T"], "-m 9T: guest RAM must be from 1M to 1T"),
        (&["-m", "lots"], "-m lots: not a size"),
        (&["-smp", "4"], "-smp 4: several CPUs are not implemented"),
        (&["-enable-kvm"], "-enable-kvm: emu has no hardware virtualisation"),
        (&["-accel", "kvm"], "-accel kvm: kvm: emu has no hardware virtualisation"),
        (&["-machine", "q35"], "-machine q35: machine 'q35' is not implemented; nearest is 'pc'"),
        (&["-cpu", "z80"], "-cpu z80: CPU model 'z80' does not exist"),
        (&["-device", "pcnet"], "-device pcnet: 'pcnet' is not a valid device model name here"),
        (&["-vnc", ":1"], "-vnc: not implemented"),
        (&["-drive", "file=x,if=scsi"], "-drive file=x,if=scsi: 'if=scsi' is not implemented"),
        (&["-cdrom", "c", "-hdc", "d"], "-cdrom c: drive with bus=1, unit=0 exists: -hdc d"),
        (&["-gdb", "tcp::1234"], "-gdb: not implemented"),
        (&["-serial", "vc"], "-serial vc: back end 'vc' is not implemented"),
        (&["-d", "foo"], "-d foo: no log item 'foo'"),
        (&["-rtc", "base=yesterday"], "-rtc base=yesterday: expected base="),
        (&["-icount", "shift=99"], "-icount shift=99: the shift must be auto or from 0 to 10"),
        (&["-display", "vnc=:1"], "-display vnc=:1: not implemented; implemented: none, curses, window"),
        (&["-append", "x"], "-append: only goes with -kernel"),
        (&["-bios", "/dev/null"], "-bios /dev/null: the file is empty"),
        (&["-bios", "/nonexistent"], "-bios /nonexistent: cannot read"),
        (&["dev", "frobnicate"], "dev: "),
        (&["dev", "disasm", "--hex", "xyz"], "--hex xyz: expected pairs"),
        (&["dev", "disasm", "/nonexistent"], "dev: cannot read /nonexistent"),
    ] {
        // Something to boot, so that the first complaint is about what is tested.
        let mut all = arguments.to_vec();
        if !matches!(arguments, [] | ["-append" | "-bios", _] | ["dev", ..]) {
            all.splice(0..0, ["-kernel", "/nonexistent"]);
        }
        let text = refusal(&all);
        assert!(text.starts_with(line), "{arguments:?}: {text}");
    }
}

#[test]
fn bad_files_are_refused_by_name() {
    assert!(refusal(&["-kernel", "/nonexistent"]).starts_with("-kernel /nonexistent: cannot read: No such file"));
    assert!(refusal(&["-kernel", "/"]).starts_with("-kernel /: cannot read: Is a directory"));
    let empty = temporary("empty");
    std::fs::write(&empty, b"").unwrap();
    let name = empty.to_str().unwrap();
    assert_eq!(refusal(&["-kernel", name]), format!("-kernel {name}: the file is empty"));
    let text = temporary("text");
    std::fs::write(&text, b"not a kernel\n".repeat(1000)).unwrap();
    let line = refusal(&["-kernel", text.to_str().unwrap()]);
    assert!(line.starts_with(&format!("-kernel {}: not a kernel", text.display())), "{line}");
    let kernel = guest::KernelFile::new("bad-files");
    let kernel = kernel.0.to_str().unwrap();
    assert_eq!(
        refusal(&["-kernel", kernel, "-initrd", "/nonexistent"]),
        "-initrd /nonexistent: cannot read: No such file or directory (os error 2)"
    );
    assert!(refusal(&["-kernel", kernel, "-m", "1", "-initrd", "/dev/zero"]).contains("too large; the limit is 1M"));
    for (option, value) in [
        ("-serial", "file:/nonexistent/x"),
        ("-serial", "unix:/nonexistent/x"),
        ("-serial", "tcp:127.0.0.1:1"),
        ("-serial", "pipe:/nonexistent/x"),
        ("-D", "/nonexistent/x"),
        ("-pidfile", "/nonexistent/x"),
    ] {
        let line = refusal(&["-kernel", kernel, option, value]);
        assert!(line.starts_with(&format!("{option} {value}: ")), "{line}");
    }
    let line = refusal(&["-kernel", kernel, "-nographic", "-append", &"x".repeat(5000)]);
    assert!(line.contains("command line"), "{line}");
    std::fs::remove_file(empty).unwrap();
    std::fs::remove_file(text).unwrap();
}

#[test]
fn help_is_on_stdout_and_lists_options_in_qemus_shape() {
    for spelling in ["-help", "--help", "-h"] {
        let output = emu(&[spelling]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && output.stderr.is_empty());
        assert!(text.lines().any(|l| l.starts_with("-kernel file")), "{text}");
        assert!(text.lines().any(|l| l.starts_with("-M or -machine")), "{text}");
        assert!(!text.lines().any(|l| l.starts_with("-gdb")), "{text}");
        for key in ["ctrl-alt-g ", "ctrl-alt-f ", "ctrl-alt-s ", "ctrl-alt-d ", "ctrl-alt-p ", "ctrl-alt-q "] {
            assert!(text.lines().any(|l| l.starts_with(key)), "{key}: {text}");
        }
    }
    for option in ["-machine", "-cpu", "-accel", "-device", "-netdev", "-chardev", "-d"] {
        let output = emu(&[option, "help"]);
        assert!(output.status.success() && !output.stdout.is_empty(), "{option}");
    }
}

#[test]
fn help_into_a_closed_pipe_is_no_crash() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_emu"));
    let mut child = command.arg("-help").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn version_depends_on_the_name_it_is_called_by() {
    let output = emu(&["-version"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), concat!("emu version ", env!("CARGO_PKG_VERSION"), "\n"));
    let folder = temporary("names");
    std::fs::create_dir_all(&folder).unwrap();
    let link = folder.join("qemu-system-x86_64");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_emu"), &link).unwrap();
    let output = Command::new(&link).arg("--version").output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("QEMU emulator version 10.0.2 (emu "));
    let output = Command::new(&link).arg("-bogus").output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("qemu-system-x86_64: -bogus: invalid option"));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn disasm_lists_hexadecimal_bytes_and_files() {
    let output = emu(&["dev", "disasm", "--bits", "64", "--at", "0x1000", "--hex", "0f 05 f4"]);
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "0000000000001000  0f05                    syscall\n0000000000001002  f4                      hlt\n"
    );
    let file = temporary("code");
    std::fs::write(&file, [0x90, 0xfa, 0xf4]).unwrap();
    let output = emu(&["dev", "disasm", "--bits", "16", "--offset", "1", file.to_str().unwrap()]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("00000001  fa                      cli\n"), "{text}");
    std::fs::remove_file(file).unwrap();
}

#[test]
fn run_case_tells_right_from_wrong_cases() {
    let output = emu(&["dev", "run-case", "--case", "[40] \"inc eax\" eax=1 => eax=2"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "--case:1: ok: inc eax\n");
    let output = emu(&["dev", "run-case", "--case", "[40] \"inc eax\" eax=1 => eax=3"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout).unwrap().contains("FAILED: inc eax: by single step: rax is 0x2"));
    assert!(refusal(&["dev", "run-case", "--case", "inc"]).starts_with("dev run-case: --case:1: expected"));
}

#[test]
fn block_shows_handlers_and_lockstep_agrees_with_itself() {
    let output = emu(&["dev", "block", "--hex", "01 d8 75 fc"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("4 bytes, 2 instructions\nentry\n"), "{text}");
    assert!(text.contains("0x8000 add eax,ebx"), "{text}");
    assert!(refusal(&["dev", "block", "--at", "0xa0000", "--hex", "90"]).contains("--at 0xa0000: must be below"));
    let kernel = guest::KernelFile::new("lockstep");
    let kernel = kernel.0.to_str().unwrap();
    let words = ["dev", "lockstep", "--instructions", "20000", "--every", "3000", "-kernel", kernel, "-m", "16"];
    let output = emu(&words);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "both machines agree for 20000 instructions\n");
}
