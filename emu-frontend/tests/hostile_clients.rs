//! Clients of monitors that send nonsense, too much, or do not read: the emulator keeps its memory, the guest goes on, and the
//! next client is served.

mod guest;

use guest::{Emulator, PATIENCE, Stream, temporary};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Memory that the emulator may take on, in KiB: a few queues, and the largest value of QMP some times over.
const GROWTH: u64 = 24 << 10;

struct Target {
    emu: Emulator,
    qmp: PathBuf,
    hmp: PathBuf,
    before: u64,
}

fn connect(path: &Path) -> UnixStream {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match UnixStream::connect(path) {
            Ok(socket) => return socket,
            Err(e) => assert!(Instant::now() < deadline, "{}: {e}", path.display()),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Target {
    fn start(name: &str) -> Target {
        let (qmp, hmp) = (temporary(&format!("{name}.qmp")), temporary(&format!("{name}.hmp")));
        let server = |path: &Path| format!("unix:{},server=on,wait=off", path.display());
        let arguments = ["-serial", "stdio", "-qmp", &server(&qmp), "-monitor", &server(&hmp)];
        let mut emu = Emulator::start(name, &arguments);
        emu.output.expect("ready\n");
        let mut target = Target { emu, qmp, hmp, before: 0 };
        // Once around, so that everything is there that a quiet session needs.
        target.expect_service();
        target.before = target.memory();
        target
    }

    /// Resident memory in KiB: proc(5).
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.emu.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// That new clients of both monitors, and the guest, get their answers.
    fn expect_service(&mut self) {
        let requests = "{\"execute\": \"qmp_capabilities\"}{\"execute\": \"query-status\", \"id\": 5}";
        for (path, greeting, request, answer) in [
            (&self.qmp, "{\"QMP\": {", requests, "\"id\": 5"),
            (&self.hmp, "emu ", "info status\n", "VM status: running"),
        ] {
            let mut client = connect(path);
            let mut answers = Stream::of(client.try_clone().unwrap());
            // Nothing comes before it: answers to what another client asked are not for this one.
            assert_eq!(answers.expect(greeting), greeting);
            client.write_all(request.as_bytes()).unwrap();
            answers.expect(answer);
            // The thread that reads has the other handle.
            client.shutdown(Shutdown::Both).unwrap();
        }
        self.emu.type_keys(b"mango");
        self.emu.output.expect("mango");
    }

    fn expect_little_growth(&self) {
        let after = self.memory();
        assert!(after < self.before + GROWTH, "{} KiB have become {after}", self.before);
    }

    fn finish(mut self) {
        self.expect_service();
        self.expect_little_growth();
        self.emu.type_keys(b"q");
        assert_eq!(self.emu.wait(), Some(0));
    }
}

/// Sends all of `bytes` while somebody reads and drops the answers; how many bytes those were.
fn flood(client: &mut UnixStream, bytes: &[u8]) -> usize {
    let mut source = client.try_clone().unwrap();
    let reader = std::thread::spawn(move || {
        let (mut buffer, mut count) = ([0; 65536], 0);
        while let Ok(n @ 1..) = source.read(&mut buffer) {
            count += n;
        }
        count
    });
    client.write_all(bytes).expect("the monitor reads on");
    client.shutdown(Shutdown::Write).unwrap();
    reader.join().unwrap()
}

/// Sends `bytes` over and over until the socket takes no more for a while.
fn stuff(client: &mut UnixStream, bytes: &[u8]) {
    client.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let (mut sent, deadline) = (0, Instant::now() + PATIENCE);
    loop {
        match client.write(bytes) {
            Ok(n) => sent += n,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return,
            Err(e) => panic!("{e}"),
        }
        assert!(
            sent < 256 << 20 && Instant::now() < deadline,
            "somebody keeps {sent} bytes of a client that never reads"
        );
    }
}

#[test]
fn garbage_and_endless_lines_are_answered_and_not_kept() {
    let mut target = Target::start("garbage");
    let mut random = 0x1234_5678_9abc_def0u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // But for small letters, of which some are commands.
        (random as u8).to_ascii_uppercase()
    })
    .take(200_000)
    .collect();
    let deep = [b"[".repeat(100_000), b"{\"a\":".repeat(20_000)].concat();
    let long = vec![b'x'; 2 << 20];
    let string = [b"{\"execute\": \"".to_vec(), vec![b'y'; 2 << 20], b"\"}\n".to_vec()].concat();
    for path in [target.qmp.clone(), target.hmp.clone()] {
        for bytes in [&noise, &deep, &long, &string] {
            flood(&mut connect(&path), bytes);
        }
        target.expect_service();
    }
    // A monitor command of QMP may be as long as a value.
    for command in ["(".repeat(100_000), "x".repeat(900_000), format!("p {}1", "-".repeat(500_000))] {
        let line = format!(
            "{{\"execute\": \"qmp_capabilities\"}}{{\"execute\": \"human-monitor-command\", \"arguments\": {{\"command-line\": \"{command}\"}}, \"id\": 9}}"
        );
        assert!(flood(&mut connect(&target.qmp), line.as_bytes()) > 0);
    }
    target.finish();
}

#[test]
fn client_that_never_reads_stops_itself_only() {
    let mut target = Target::start("never-reads");
    // Long requests with long answers: what the queues hold of them is answered, to nobody, before the next client is served, and
    // tens of thousands of answers are too many for a test on a busy host.
    let padding = " ".repeat(500);
    let requests =
        format!("{{\"execute\": \"qmp_capabilities\"}}{{\"execute\": \"query-commands\"}}{padding}").repeat(100);
    let lines = format!("help{padding}\n").repeat(100);
    for (path, bytes) in [(target.qmp.clone(), requests.into_bytes()), (target.hmp.clone(), lines.into_bytes())] {
        let mut client = connect(&path);
        stuff(&mut client, &bytes);
        // The guest does not notice, and when the client goes, the next one is served.
        target.emu.type_keys(b"plum");
        target.emu.output.expect("plum");
        target.expect_little_growth();
        drop(client);
        target.expect_service();
    }
    target.finish();
}

#[test]
fn quit_does_not_wait_for_a_client_that_never_reads() {
    let target = Target::start("quit-never-reads");
    let mut client = connect(&target.hmp);
    stuff(&mut client, &b"help\n".repeat(1000));
    let mut emu = target.emu;
    emu.type_keys(b"q");
    assert_eq!(emu.wait(), Some(0));
}

#[test]
fn client_that_has_sent_everything_still_receives_every_answer() {
    let target = Target::start("half-closed");
    for _ in 0..20 {
        let mut client = connect(&target.hmp);
        client.write_all(&[b"info version\n".repeat(50), b"info status\n".to_vec()].concat()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answers = String::new();
        client.read_to_string(&mut answers).unwrap();
        assert!(answers.ends_with("VM status: running\r\n(qemu) "), "{answers}");
        let mut client = connect(&target.qmp);
        client.write_all(b"{\"execute\": \"qmp_capabilities\"}{\"execute\": \"query-version\", \"id\": 1}").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answers = String::new();
        client.read_to_string(&mut answers).unwrap();
        assert!(answers.contains("\"id\": 1"), "{answers}");
    }
    target.finish();
}
