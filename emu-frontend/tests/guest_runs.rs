//! A running guest seen from outside: exit statuses, the terminal, the monitor, signals, the log.

mod guest;

use guest::{Emulator, temporary};

#[test]
fn power_off_ends_with_status_0_and_output_is_complete() {
    let mut emu = Emulator::start("power-off", &["-serial", "stdio"]);
    emu.output.expect("ready\n");
    emu.type_keys(b"mango");
    emu.output.expect("mango");
    emu.type_keys(b"fq");
    assert_eq!(emu.wait(), Some(0));
    let emu_output = std::mem::replace(&mut emu.output, guest::Stream::of(std::io::empty()));
    let rest = emu_output.rest();
    assert_eq!(rest.len(), 100_001);
}

#[test]
fn debug_exit_gives_its_status() {
    let mut emu =
        Emulator::start("debug-exit", &["-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]);
    emu.output.expect("ready\n");
    emu.type_keys(b"e");
    assert_eq!(emu.wait(), Some(7));
}

#[test]
fn reset_starts_the_guest_again_or_ends_the_emulator() {
    let mut emu = Emulator::start("reset", &["-serial", "stdio"]);
    emu.output.expect("ready\n");
    emu.type_keys(b"r");
    emu.output.expect("ready\n");
    emu.type_keys(b"q");
    assert_eq!(emu.wait(), Some(0));
    let mut emu = Emulator::start("no-reboot", &["-serial", "stdio", "-no-reboot"]);
    emu.output.expect("ready\n");
    emu.type_keys(b"r");
    assert_eq!(emu.wait(), Some(0));
}

#[test]
fn triple_fault_under_no_reboot_is_explained_and_ends_with_status_0() {
    let mut emu = Emulator::start("triple-fault", &["-serial", "stdio", "-no-reboot"]);
    emu.output.expect("ready\n");
    emu.type_keys(b"t");
    assert_eq!(emu.wait(), Some(0));
    let text = emu.errors.expect("#UD");
    assert!(text.starts_with("emu: triple fault"), "{text}");
    emu.errors.expect("EAX=");
    let mut emu = Emulator::start("triple-fault-reboot", &["-serial", "stdio"]);
    emu.output.expect("ready\n");
    emu.type_keys(b"t");
    emu.output.expect("ready\n");
}

#[test]
fn nographic_escape_keys_reach_monitor_and_quit() {
    let mut emu = Emulator::start("nographic", &["-nographic", "-name", "guest7"]);
    emu.output.expect("ready\n");
    emu.type_keys(b"a\x01\x01b");
    emu.output.expect("a\x01b");
    emu.type_keys(b"\x01h");
    emu.output.expect("C-a x    exit emulator");
    emu.type_keys(b"\x01cinfo status\r");
    emu.output.expect("(qemu) ");
    emu.output.expect("VM status: running\r\n(qemu) ");
    emu.type_keys(b"stop\rinfo status\rinfo registers\rinfo name\r");
    emu.output.expect("VM status: paused");
    emu.output.expect("EIP=");
    emu.output.expect("guest7\r\n");
    emu.type_keys(b"cont\rsystem_reset\r");
    emu.output.expect("ready\n");
    emu.type_keys(b"\x01czz");
    emu.output.expect("zz");
    emu.type_keys(b"\x01x");
    emu.output.expect("emu: Terminated\r\n");
    assert_eq!(emu.wait(), Some(0));
}

#[test]
fn other_escape_character_leaves_control_a_to_the_guest() {
    let mut emu = Emulator::start("echr", &["-nographic", "-echr", "0x14"]);
    emu.output.expect("ready\n");
    emu.type_keys(b"\x01x");
    emu.output.expect("\x01x");
    emu.type_keys(b"\x14x");
    assert_eq!(emu.wait(), Some(0));
}

#[test]
fn stopped_machine_waits_for_cont_and_quit_ends_it() {
    let mut emu = Emulator::start("paused", &["-S", "-monitor", "stdio", "-serial", "null"]);
    emu.output.expect("(qemu) ");
    emu.type_keys(b"info status\n");
    emu.output.expect("VM status: paused");
    emu.type_keys(b"cont\ninfo status\n");
    emu.output.expect("VM status: running");
    emu.type_keys(b"quit\n");
    assert_eq!(emu.wait(), Some(0));
}

/// Asks the monitor for the machine's status until it is this one.
fn expect_status(emu: &mut Emulator, status: &str) {
    loop {
        emu.type_keys(b"info status\r");
        if emu.output.expect("(qemu) ").contains(status) {
            return;
        }
    }
}

#[test]
fn actions_do_what_the_older_switches_do() {
    let mut emu = Emulator::start("action-reboot", &["-serial", "stdio", "-action", "reboot=shutdown"]);
    emu.output.expect("ready\n");
    emu.type_keys(b"r");
    assert_eq!(emu.wait(), Some(0));
    let arguments = ["-nographic", "-no-reboot", "-action", "reboot=reset", "-action", "shutdown=pause"];
    let mut emu = Emulator::start("action-shutdown", &arguments);
    emu.output.expect("ready\n");
    emu.type_keys(b"r");
    emu.output.expect("ready\n");
    emu.type_keys(b"q\x01c");
    emu.output.expect("(qemu) ");
    expect_status(&mut emu, "VM status: paused (shutdown)");
    emu.type_keys(b"q\r");
    assert_eq!(emu.wait(), Some(0));
}

#[test]
fn no_shutdown_stops_instead_of_ending() {
    let mut emu = Emulator::start("no-shutdown", &["-nographic", "-no-shutdown"]);
    emu.output.expect("ready\n");
    emu.type_keys(b"q\x01c");
    emu.output.expect("(qemu) ");
    expect_status(&mut emu, "VM status: paused");
    emu.type_keys(b"q\r");
    assert_eq!(emu.wait(), Some(0));
}

#[test]
fn termination_signal_ends_cleanly_and_removes_the_pid_file() {
    let pidfile = temporary("signal.pid");
    let mut emu = Emulator::start("signal", &["-serial", "stdio", "-pidfile", pidfile.to_str().unwrap()]);
    emu.output.expect("ready\n");
    assert_eq!(std::fs::read_to_string(&pidfile).unwrap(), format!("{}\n", emu.child.id()));
    let pid = rustix::process::Pid::from_child(&emu.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(emu.wait(), Some(0));
    emu.errors.expect("emu: terminating on signal 15\n");
    assert!(!pidfile.exists());
}

#[test]
fn debugcon_and_log_go_to_their_files() {
    let (console, log) = (temporary("e9.txt"), temporary("log.txt"));
    let to_console = format!("file:{}", console.display());
    let arguments =
        ["-serial", "stdio", "-debugcon", &to_console, "-d", "int", "-D", log.to_str().unwrap(), "-no-reboot"];
    let mut emu = Emulator::start("debugcon", &arguments);
    emu.output.expect("ready\n");
    emu.type_keys(b"dt");
    assert_eq!(emu.wait(), Some(0));
    assert_eq!(std::fs::read(&console).unwrap(), b"D");
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("v=06 e=0000 i=0 cpl=0 IP=0010:"), "{text}");
    std::fs::remove_file(console).unwrap();
    std::fs::remove_file(log).unwrap();
}

#[test]
fn log_items_show_code_steps_and_resets() {
    for (items, wanted) in [
        ("in_asm,cpu_reset", &["CPU Reset (CPU 0)\n", "\nIN:\n0x00100000:  bc00000800", "mov esp,80000h\n"][..]),
        ("exec", &["exec 0010:0000000000100000 cpl=0 mov esp,80000h\n"]),
    ] {
        let log = temporary("items.txt");
        let mut emu = Emulator::start("log-items", &["-serial", "stdio", "-d", items, "-D", log.to_str().unwrap()]);
        emu.output.expect("ready\n");
        emu.type_keys(b"q");
        assert_eq!(emu.wait(), Some(0));
        let text = std::fs::read_to_string(&log).unwrap();
        wanted.iter().for_each(|w| assert!(text.contains(w), "{w}: {}", &text[..text.len().min(2000)]));
        assert!(!text.contains("v="));
        std::fs::remove_file(log).unwrap();
    }
}

#[test]
fn daemon_prints_nothing_and_lives_on_until_it_is_ended() {
    let (pidfile, socket) = (temporary("daemon.pid"), temporary("daemon.sock"));
    let serial = format!("unix:{},server,nowait", socket.display());
    let arguments = ["-daemonize", "-serial", &serial, "-pidfile", pidfile.to_str().unwrap()];
    let mut emu = Emulator::start("daemon", &arguments);
    assert_eq!(emu.wait(), Some(0));
    let mut client = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    let mut output = guest::Stream::of(client.try_clone().unwrap());
    std::io::Write::write_all(&mut client, b"hi").unwrap();
    output.expect("hi");
    std::io::Write::write_all(&mut client, b"q").unwrap();
    output.rest();
    assert!(!pidfile.exists() && !socket.exists());
}
