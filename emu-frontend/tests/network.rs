//! Networks of the running program: what monitors show and change, and what the host does not allow.

mod guest;

use guest::{Emulator, KernelFile, Stream, temporary};
use iced_x86::IcedError;
use iced_x86::code_asm::{CodeAssembler, al, ax, bl, dx, eax, ebx, ecx, esi};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::process::Command;

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What the monitor on stdio answers.
fn ask(emu: &mut Emulator, line: &str) -> String {
    emu.type_keys(format!("{line}\n").as_bytes());
    emu.output.expect("\n");
    emu.output.expect("(qemu) ").replace('\r', "").trim_end_matches("(qemu) ").to_string()
}

/// Reads the 8254's counter many times, prints what it has seen as eight digits, and powers off.
fn watch_time(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut next, mut print) = (a.create_label(), a.create_label());
    let (mut digit, mut send) = (a.create_label(), a.create_label());
    a.mov(ecx, 200_000)?;
    a.xor(esi, esi)?;
    a.set_label(&mut next)?;
    a.in_(al, 0x40)?;
    a.movzx(eax, al)?;
    a.rol(esi, 1)?;
    a.add(esi, eax)?;
    a.dec(ecx)?;
    a.jne(next)?;
    a.mov(ecx, 8)?;
    a.set_label(&mut print)?;
    a.rol(esi, 4)?;
    a.mov(ebx, esi)?;
    a.and(ebx, 15)?;
    a.call(digit)?;
    a.dec(ecx)?;
    a.jne(print)?;
    a.mov(bl, i32::from(b'\n'))?;
    a.call(send)?;
    a.mov(dx, 0x604)?;
    a.mov(eax, 0x2000)?;
    a.out(dx, ax)?;
    a.hlt()?;
    guest::send_digit(a, &mut digit, send)?;
    guest::send_bl(a, &mut send)
}

#[test]
fn network_that_is_not_used_leaves_counted_time_repeatable() {
    let kernel = KernelFile::with("counted-time", watch_time);
    let run = |options: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_emu"));
        command.args(["-m", "16", "-display", "none", "-serial", "stdio", "-monitor", "none"]);
        command.args(guest::accelerator()).args(options).arg("-kernel").arg(&kernel.0);
        let mut emu = Emulator::spawn(command, None);
        let seen = emu.output.expect("\n");
        assert_eq!(emu.wait(), Some(0));
        seen
    };
    let counted = ["-icount", "shift=0"];
    let first = run(&counted);
    assert_eq!(first.len(), 9, "{first:?}");
    for _ in 0..3 {
        assert_eq!(run(&counted), first);
    }
    assert_ne!(run(&[]), first, "the host's time is another");
}

#[test]
fn monitor_shows_and_changes_a_network() {
    let mut emu = Emulator::start("network", &["-S", "-monitor", "stdio", "-device", "ne2k_isa", "-nic", "user,id=n"]);
    emu.output.expect("(qemu) ");
    let card = "e1000.1: index=0,type=nic,model=e1000,macaddr=52:54:00:12:34:57\n";
    let network = |rest: &str| format!("{card} \\ n: index=0,type=user,net=10.0.2.0,restrict=off{rest}\n");
    assert_eq!(ask(&mut emu, "info network"), network(""));
    for (change, rest) in [
        ("set_link n off", ",link=down"),
        ("set_link e1000.1 on", ""),
        ("net_set_io_throttle n 1000 0 0 5 0 0", ",throttling={bps-total=1000,iops-total=5}"),
        ("net_set_io_throttle n 0 0 0 0 0 0", ""),
    ] {
        assert_eq!(ask(&mut emu, change), "", "{change}");
        assert_eq!(ask(&mut emu, "info network"), network(rest), "{change}");
    }
    let port = free_port();
    let rule = format!("tcp:127.0.0.1:{port}-:80");
    assert_eq!(ask(&mut emu, &format!("hostfwd_add {rule}")), "");
    assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
    assert!(ask(&mut emu, "info usernet").contains(&port.to_string()));
    let twice = ask(&mut emu, &format!("hostfwd_add n {rule}"));
    assert!(twice.starts_with(&format!("could not set up host forwarding rule '{rule}': ")), "{twice}");
    let host = format!("tcp:127.0.0.1:{port}");
    for result in ["removed", "not found"] {
        let answer = ask(&mut emu, &format!("hostfwd_remove n {host}"));
        assert_eq!(answer, format!("host forwarding rule for {host} {result}\n"));
    }
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    for (wrong, answer) in [
        ("set_link x off", "Error: Device 'x' not found\n"),
        ("net_set_io_throttle x 0 0 0 0 0 0", "Error: Device 'x' not found\n"),
        ("hostfwd_add x tcp::1-:1", "unrecognized netdev id 'x'\n"),
    ] {
        assert_eq!(ask(&mut emu, wrong), answer, "{wrong}");
    }
    emu.type_keys(b"quit\n");
    assert_eq!(emu.wait(), Some(0));
}

#[test]
fn qmp_pulls_and_plugs_cables() {
    let path = temporary("network-qmp.sock");
    let option = format!("unix:{},server=on", path.display());
    let mut emu = Emulator::start("network-qmp", &["-S", "-monitor", "stdio", "-qmp", &option]);
    let mut socket = loop {
        match UnixStream::connect(&path) {
            Ok(socket) => break socket,
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(5)),
        }
    };
    let mut answers = Stream::of(socket.try_clone().unwrap());
    answers.expect("\r\n");
    let set_link =
        |name, up| format!("{{\"execute\": \"set_link\", \"arguments\": {{\"name\": \"{name}\", \"up\": {up}}}}}\n");
    for (request, answer) in [
        ("{\"execute\": \"qmp_capabilities\"}\n".into(), "{\"return\": {}}"),
        (set_link("e1000.0", false), "{\"return\": {}}"),
        (
            set_link("e1000.9", false),
            "{\"error\": {\"class\": \"DeviceNotFound\", \"desc\": \"Device 'e1000.9' not found\"}}",
        ),
    ] {
        socket.write_all(request.as_bytes()).unwrap();
        assert_eq!(answers.expect("\r\n").trim_end(), answer, "{request}");
    }
    emu.output.expect("(qemu) ");
    assert!(ask(&mut emu, "info network").contains(",link=down"));
}

/// What the program says that cannot start, in one line, with status 1.
fn refusal(mut emu: Emulator) -> String {
    let status = emu.wait();
    let text = String::from_utf8(std::mem::replace(&mut emu.errors, Stream::of(std::io::empty())).rest()).unwrap();
    assert_eq!((status, text.matches('\n').count()), (Some(1), 1), "{text}");
    text.trim_end().to_string()
}

#[test]
fn port_that_is_in_use_is_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let user = format!("user,hostfwd=tcp:127.0.0.1:{port}-:22");
    let socket = format!("socket,listen=127.0.0.1:{port}");
    for value in [user, socket] {
        let line = refusal(Emulator::start("network-refused", &["-nic", &value]));
        let problem = format!("cannot listen at tcp:127.0.0.1:{port}: Address already in use");
        assert!(line.starts_with(&format!("emu: -nic {value}: ")) && line.contains(&problem), "{line}");
    }
}

#[test]
fn tap_without_permission_is_one_line() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_emu"));
    if std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
        // Root without the capability is like anybody else here.
        command = Command::new("setpriv");
        command.args(["--bounding-set", "-net_admin", env!("CARGO_BIN_EXE_emu")]);
    }
    command.args(["-display", "none", "-nic", "tap,ifname=emutest,script=no,downscript=no"]);
    let line = refusal(Emulator::spawn(command, None));
    assert!(line.starts_with("emu: -nic tap,ifname=emutest,script=no,downscript=no: "), "{line}");
    // Where the host has no TAP interfaces at all, that is what it says.
    let there = std::path::Path::new("/dev/net/tun").exists();
    assert_eq!(line.contains("Operation not permitted"), there, "{line}");
}
