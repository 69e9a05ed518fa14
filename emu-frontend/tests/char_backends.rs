//! Character back ends with a guest on one side and the test on the other.

mod guest;

use guest::{Emulator, PATIENCE, Stream, temporary};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::termios::{LocalModes, tcgetattr};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The path or address at the end of a line that was announced.
fn last_word(line: &str) -> &str {
    line.split_whitespace().last().unwrap_or_default()
}

/// Types `keys` on `peer` and waits for `answer` from there.
fn converse<S: Read + Write + Send + 'static>(mut peer: S, reader: S, keys: &str, answer: &str) {
    let mut output = Stream::of(reader);
    peer.write_all(keys.as_bytes()).expect("the emulator reads");
    output.expect(answer);
}

fn connect(path: &Path) -> UnixStream {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return stream,
            Err(e) if Instant::now() > deadline => panic!("{}: {e}", path.display()),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Reads no further than a text, so that what the next user is to receive is left alone.
struct Until {
    source: File,
    wanted: &'static [u8],
    seen: Vec<u8>,
}

impl Read for Until {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.seen.ends_with(self.wanted) {
            return Ok(0);
        }
        let n = self.source.read(&mut buffer[..1])?;
        self.seen.extend(&buffer[..n]);
        Ok(n)
    }
}

#[test]
fn pty_prints_its_path_and_carries_both_directions() {
    let mut emu = Emulator::start("pty", &["-serial", "pty"]);
    let line = emu.output.expect(" (label serial0)\n");
    let path = line.strip_prefix("char device redirected to ").and_then(|l| l.split(' ').next()).unwrap();
    for _ in 0..2 {
        // The first user leaves, and a second one finds the guest as it was.
        let mut slave = File::options().read(true).write(true).open(path).unwrap();
        slave.write_all(b"mango").unwrap();
        Stream::of(Until { source: slave, wanted: b"mango", seen: Vec::new() }).expect("mango");
    }
    let mut slave = File::options().write(true).open(path).unwrap();
    slave.write_all(b"q").unwrap();
    assert_eq!(emu.wait(), Some(0));
}

#[test]
fn unix_server_serves_one_client_after_another() {
    let path = temporary("server.sock");
    let serial = format!("unix:{},server=on,wait=off", path.display());
    let mut emu = Emulator::start("unix-server", &["-serial", &serial]);
    for _ in 0..3 {
        let client = connect(&path);
        converse(client.try_clone().unwrap(), client.try_clone().unwrap(), "mango", "mango");
        client.shutdown(std::net::Shutdown::Both).unwrap();
    }
    // The emulator may still be about to notice that the last client has left.
    let deadline = Instant::now() + PATIENCE;
    while emu.child.try_wait().unwrap().is_none() && Instant::now() < deadline {
        let _ = connect(&path).write_all(b"q");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(emu.wait(), Some(0));
    assert!(!path.exists());
}

#[test]
fn unix_server_with_wait_starts_the_guest_when_the_client_has_come() {
    let path = temporary("wait.sock");
    let mut emu = Emulator::start("unix-wait", &["-serial", &format!("unix:{},server", path.display())]);
    emu.errors.expect("waiting for connection on: unix:");
    let client = connect(&path);
    let mut output = Stream::of(client.try_clone().unwrap());
    output.expect("ready\n");
    (&client).write_all(b"q").unwrap();
    assert_eq!(emu.wait(), Some(0));
}

#[test]
fn unix_and_tcp_clients_connect_at_start() {
    let path = temporary("listener.sock");
    let unix = UnixListener::bind(&path).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let to_tcp = format!("tcp:127.0.0.1:{},nodelay", tcp.local_addr().unwrap().port());
    let mut emu = Emulator::start("clients", &["-serial", &format!("unix:{}", path.display()), "-monitor", &to_tcp]);
    let (mut serial, mut monitor) = (unix.accept().unwrap().0, tcp.accept().unwrap().0);
    let mut output = Stream::of(serial.try_clone().unwrap());
    output.expect("ready\n");
    let mut prompt = Stream::of(monitor.try_clone().unwrap());
    prompt.expect("(qemu) ");
    serial.write_all(b"mango").unwrap();
    output.expect("mango");
    monitor.write_all(b"quit\r\n").unwrap();
    assert_eq!(emu.wait(), Some(0));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn tcp_server_on_a_free_port_says_which() {
    let mut emu = Emulator::start("tcp-server", &["-serial", "tcp:127.0.0.1:0,server,nowait"]);
    let line = emu.errors.expect("\n");
    let address = last_word(&line).strip_prefix("tcp:").unwrap();
    let client = TcpStream::connect(address).unwrap();
    converse(client.try_clone().unwrap(), client.try_clone().unwrap(), "mango", "mango");
    (&client).write_all(b"q").unwrap();
    assert_eq!(emu.wait(), Some(0));
}

#[test]
fn telnet_server_negotiates_and_greets_each_client() {
    let arguments =
        ["-serial", "telnet:127.0.0.1:0,server,nowait", "-monitor", "telnet:127.0.0.1:0,server=on,wait=off"];
    let mut emu = Emulator::start("telnet", &arguments);
    // WILL ECHO, WILL SUPPRESS-GO-AHEAD, WILL and DO TRANSMIT-BINARY, as QEMU greets.
    let greeting = [0xff, 0xfb, 1, 0xff, 0xfb, 3, 0xff, 0xfb, 0, 0xff, 0xfd, 0];
    let connect = |emu: &mut Emulator| {
        let line = emu.errors.expect("\n");
        last_word(&line).strip_prefix("telnet:").unwrap().to_string()
    };
    // The monitor's is opened first: character devices are in the order of their names.
    let (monitor, serial) = (connect(&mut emu), connect(&mut emu));
    let client = |address: &str| {
        let mut client = TcpStream::connect(address).unwrap();
        let mut received = [0; 12];
        client.read_exact(&mut received).unwrap();
        assert_eq!(received, greeting);
        client
    };
    let mut serial = client(&serial);
    serial.write_all(b"m\xff\xfd\x01a\xff\xfd\x03\xff\xff\xff\xfb\x00n").unwrap();
    // The guest's first words may come before, if it has not said them to nobody.
    let (mut echoed, mut byte) = (Vec::new(), [0]);
    while !echoed.ends_with(b"ma\xff\xffn") {
        serial.read_exact(&mut byte).unwrap();
        echoed.extend(byte);
    }
    for _ in 0..2 {
        let mut client = client(&monitor);
        let mut output = Stream::of(client.try_clone().unwrap());
        output.expect("monitor - type 'help' for more information\r\n(qemu) ");
        client.write_all(b"info na\xff\xfd\x03me\r\0").unwrap();
        output.expect("(qemu) ");
        // Half a line is not for the next client.
        client.write_all(b"info").unwrap();
        output.expect("info");
        client.shutdown(std::net::Shutdown::Both).unwrap();
    }
    serial.write_all(b"q").unwrap();
    assert_eq!(emu.wait(), Some(0));
}

#[test]
fn pipe_pair_carries_both_directions() {
    let base = temporary("pipe");
    let paths = [".in", ".out"].map(|suffix| format!("{}{suffix}", base.display()));
    paths.iter().for_each(|path| rustix::fs::mkfifoat(CWD, path.as_str(), Mode::RUSR | Mode::WUSR).unwrap());
    let mut emu = Emulator::start("pipe", &["-serial", &format!("pipe:{}", base.display())]);
    let mut output = Stream::of(File::open(&paths[1]).unwrap());
    output.expect("ready\n");
    File::options().write(true).open(&paths[0]).unwrap().write_all(b"mangoq").unwrap();
    output.expect("mango");
    assert_eq!(emu.wait(), Some(0));
    paths.iter().for_each(|path| std::fs::remove_file(path).unwrap());
}

#[test]
fn file_receives_all_output_and_append_keeps_what_was_there() {
    let (path, log) = (temporary("serial.txt"), temporary("copy.txt"));
    std::fs::write(&path, "old\n").unwrap();
    let file = format!("file,id=f,path={},append=on,logfile={}", path.display(), log.display());
    let mut emu = Emulator::start("file", &["-serial", "stdio", "-chardev", &file, "-debugcon", "chardev:f"]);
    emu.output.expect("ready\n");
    emu.type_keys(b"ddq");
    assert_eq!(emu.wait(), Some(0));
    assert_eq!(std::fs::read(&path).unwrap(), b"old\nDD");
    assert_eq!(std::fs::read(&log).unwrap(), b"DD");
    std::fs::remove_file(path).unwrap();
    std::fs::remove_file(log).unwrap();
}

#[test]
fn slow_reader_holds_the_guest_back_and_loses_nothing() {
    let mut emu = Emulator::start("slow", &["-serial", "stdio"]);
    emu.output.expect("ready\n");
    let path = temporary("slow.sock");
    let mut slow = Emulator::start("slow-socket", &["-serial", &format!("unix:{},server", path.display())]);
    let mut client = connect(&path);
    client.write_all(b"f").unwrap();
    // The guest fills the socket's and the emulator's buffers, and has to wait.
    std::thread::sleep(Duration::from_millis(300));
    let mut text = Stream::of(client.try_clone().unwrap());
    text.expect("ready\n");
    assert_eq!(text.expect("\n").len(), 100_001);
    client.write_all(b"q").unwrap();
    assert_eq!(slow.wait(), Some(0));
}

#[test]
fn two_serial_ports_share_a_terminal_by_escape_key() {
    let arguments = ["-chardev", "stdio,id=c,mux=on", "-serial", "chardev:c", "-serial", "chardev:c"];
    let mut emu = Emulator::start("two-ports", &arguments);
    emu.output.expect("ready\n");
    // The guest listens on the first port only.
    emu.type_keys(b"m\x01cnnn\x01ca");
    let text = emu.output.expect("a");
    assert_eq!(text, "ma");
}

/// Runs the guest on a terminal of its own and has `end` end it; the local modes before, during and after.
fn on_a_terminal(name: &str, arguments: &[&str], end: impl FnOnce(&mut File, u32)) -> [LocalModes; 3] {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let path = ptsname(&master, Vec::new()).unwrap();
    let slave = rustix::fs::open(path, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    let before = tcgetattr(&slave).unwrap().local_modes;
    let kernel = guest::KernelFile::new(name);
    let mut command = Command::new(env!("CARGO_BIN_EXE_emu"));
    command
        .args(guest::accelerator())
        .arg("-kernel")
        .arg(&kernel.0)
        .args(["-m", "16"])
        .args(arguments)
        .stderr(Stdio::null());
    command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap());
    let mut child = command.spawn().unwrap();
    let mut keyboard = File::from(master);
    let mut screen = Stream::of(keyboard.try_clone().unwrap());
    screen.expect("ready\r\n");
    let during = tcgetattr(&slave).unwrap().local_modes;
    end(&mut keyboard, child.id());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    [before, during, tcgetattr(&slave).unwrap().local_modes]
}

#[test]
fn terminal_is_raw_while_the_guest_runs_and_restored_on_every_way_out() {
    let keys = LocalModes::ECHO | LocalModes::ICANON;
    let modes = on_a_terminal("tty-quit", &["-nographic"], |keyboard, _| keyboard.write_all(b"\x01x").unwrap());
    assert!(modes[0].contains(keys | LocalModes::ISIG) && modes[0] == modes[2]);
    assert!(!modes[1].intersects(keys | LocalModes::ISIG));

    let modes = on_a_terminal("tty-off", &["-nographic"], |keyboard, _| keyboard.write_all(b"q").unwrap());
    assert_eq!(modes[0], modes[2]);

    let terminate = |_: &mut File, pid: u32| {
        let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    };
    let modes = on_a_terminal("tty-signal", &["-serial", "stdio", "-display", "none"], terminate);
    assert_eq!(modes[0], modes[2]);
    assert!(modes[1].contains(LocalModes::ISIG) && !modes[1].intersects(keys));
}
