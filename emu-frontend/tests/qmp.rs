//! Conversations in QMP, as programs hold them that steer QEMU.

mod guest;

use guest::{Emulator, Stream, temporary};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

struct Client {
    socket: UnixStream,
    answers: Stream,
}

impl Client {
    fn connect(path: &std::path::Path) -> Client {
        let deadline = Instant::now() + guest::PATIENCE;
        let socket = loop {
            match UnixStream::connect(path) {
                Ok(socket) => break socket,
                Err(e) => assert!(Instant::now() < deadline, "{}: {e}", path.display()),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let answers = Stream::of(socket.try_clone().unwrap());
        Client { socket, answers }
    }

    /// Sends one command; the next line.
    fn ask(&mut self, line: &str) -> String {
        self.socket.write_all(line.as_bytes()).unwrap();
        self.line()
    }

    fn line(&mut self) -> String {
        self.answers.expect("\r\n").trim_end().to_string()
    }

    /// The name and the data of the next line, which is an event.
    fn event(&mut self) -> String {
        let line = self.line();
        assert!(line.contains("\"timestamp\": {"), "{line}");
        line
    }
}

#[test]
fn client_negotiates_steers_the_guest_and_hears_of_it() {
    let path = temporary("qmp.sock");
    let option = format!("unix:{},server=on,wait=off", path.display());
    let mut emu = Emulator::start("qmp", &["-S", "-serial", "stdio", "-name", "guest7", "-qmp", &option]);
    let mut client = Client::connect(&path);
    let greeting = client.line();
    assert!(greeting.starts_with("{\"QMP\": {") && greeting.contains("\"major\": 10"), "{greeting}");
    for (request, answer) in [
        (
            "{\"execute\": \"query-status\"}",
            "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"Expecting capabilities negotiation with 'qmp_capabilities'\"}}",
        ),
        ("{\"execute\": \"qmp_capabilities\",\r\n \"id\": 7}", "{\"id\": 7, \"return\": {}}"),
        (
            "{\"execute\": \"foo\", \"id\": {\"a\": 1}}",
            "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"The command foo has not been found\"}, \"id\": {\"a\": 1}}",
        ),
        ("[1]", "{\"error\": {\"class\": \"GenericError\", \"desc\": \"QMP input must be a JSON object\"}}"),
        (
            "{\"execute\": \"stop\", \"arguments\": {\"x\": 1}}",
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"Parameter 'x' is unexpected\"}}",
        ),
        (
            "{\"execute\": \"query-status\"}",
            "{\"return\": {\"running\": false, \"singlestep\": false, \"status\": \"prelaunch\"}}",
        ),
        (
            "{\"execute\": \"human-monitor-command\", \"arguments\": {\"command-line\": \"info status\"}}",
            "{\"return\": \"VM status: paused (prelaunch)\\r\\n\"}",
        ),
        (
            "{\"execute\": \"send-key\", \"arguments\": {\"keys\": [{\"type\": \"qcode\", \"data\": \"foo\"}]}}",
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"Parameter 'data' does not accept value 'foo'\"}}",
        ),
        (
            "{\"execute\": \"send-key\", \"arguments\": {\"keys\": [{\"type\": \"number\", \"data\": 30}]}}",
            "{\"return\": {}}",
        ),
        (
            "{\"execute\": \"screendump\", \"arguments\": {\"filename\": \"/nonexistent/x\"}}",
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"failed to open file '/nonexistent/x': No such file or directory\"}}",
        ),
        (
            "{\"execute\": \"qmp_capabilities\"}",
            "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"Capabilities negotiation is already complete, command ignored\"}}",
        ),
    ] {
        assert_eq!(client.ask(request), answer, "{request}");
    }
    assert!(client.ask("{bad}").contains("\"desc\": \"JSON parse error, "));
    assert!(client.ask("{\"execute\": \"query-commands\"}").contains("{\"name\": \"system_reset\"}"));
    assert!(client.ask("{\"execute\": \"query-cpus-fast\"}").contains("\"cpu-index\": 0"));
    assert!(client.ask("{\"execute\": \"query-block\"}").starts_with("{\"return\": ["));
    assert_eq!(client.ask("{\"execute\": \"query-name\"}"), "{\"return\": {\"name\": \"guest7\"}}");
    let uuid = "{\"return\": {\"UUID\": \"00000000-0000-0000-0000-000000000000\"}}";
    assert_eq!(client.ask("{\"execute\": \"query-uuid\"}"), uuid);
    assert_eq!(client.ask("{\"execute\": \"query-kvm\"}"), "{\"return\": {\"enabled\": false, \"present\": false}}");
    assert!(client.ask("{\"execute\": \"query-chardev\"}").contains("\"filename\": \"stdio\""));

    let nothing = "{\"return\": {}}";
    for (command, events) in [
        ("cont", &["\"RESUME\""][..]),
        ("cont", &[]),
        ("stop", &["\"STOP\""]),
        ("stop", &[]),
        ("system_reset", &["\"RESET\""]),
        ("system_powerdown", &["\"POWERDOWN\""]),
        ("cont", &["\"RESUME\""]),
    ] {
        client.socket.write_all(format!("{{\"execute\": \"{command}\"}}").as_bytes()).unwrap();
        for event in events {
            let line = client.event();
            assert!(line.contains(event), "{command}: {line}");
        }
        assert_eq!(client.line(), nothing, "{command}");
    }
    emu.output.expect("ready\n");
    emu.type_keys(b"r");
    let reset = client.event();
    assert!(reset.contains("{\"guest\": true, \"reason\": \"guest-reset\"}") && reset.contains("\"RESET\""), "{reset}");
    client.socket.write_all(b"{\"execute\": \"quit\", \"id\": \"z\"}").unwrap();
    let shutdown = client.event();
    assert!(shutdown.contains("\"SHUTDOWN\"") && shutdown.contains("\"host-qmp-quit\""), "{shutdown}");
    assert_eq!(client.line(), "{\"id\": \"z\", \"return\": {}}");
    assert_eq!(emu.wait(), Some(0));
}

#[test]
fn discs_are_changed_and_ejected() {
    let (path, disc) = (temporary("qmp-disc.sock"), temporary("disc.iso"));
    std::fs::write(&disc, [0; 4096]).unwrap();
    let option = format!("unix:{},server=on,wait=off", path.display());
    let mut emu = Emulator::start("qmp-disc", &["-qmp", &option]);
    let mut client = Client::connect(&path);
    client.answers.expect("\r\n");
    client.ask("{\"execute\": \"qmp_capabilities\"}");
    let nothing = "{\"return\": {}}";
    let change = |device: &str, file: &std::path::Path| {
        let arguments = format!("{{\"device\": \"{device}\", \"filename\": \"{}\"}}", file.display());
        format!("{{\"execute\": \"blockdev-change-medium\", \"arguments\": {arguments}}}")
    };
    assert_eq!(client.ask(&change("ide1-cd0", &disc)), nothing);
    let block = client.ask("{\"execute\": \"query-block\"}");
    assert!(block.contains("disc.iso\"") && block.contains("\"virtual-size\": 4096"), "{block}");
    assert_eq!(client.ask("{\"execute\": \"eject\", \"arguments\": {\"id\": \"ide1-cd0\"}}"), nothing);
    assert!(!client.ask("{\"execute\": \"query-block\"}").contains("disc.iso"));
    let absent = client.ask("{\"execute\": \"eject\", \"arguments\": {\"device\": \"x\", \"force\": true}}");
    assert_eq!(absent, "{\"error\": {\"class\": \"DeviceNotFound\", \"desc\": \"Device 'x' not found\"}}");
    assert!(
        client.ask(&change("ide1-cd0", std::path::Path::new("/nonexistent"))).contains("Could not open '/nonexistent'")
    );
    let neither = client.ask("{\"execute\": \"eject\"}");
    assert!(neither.contains("Need exactly one of 'device' and 'id'"), "{neither}");
    client.ask("{\"execute\": \"quit\"}");
    assert_eq!(emu.wait(), Some(0));
    std::fs::remove_file(disc).unwrap();
}

#[test]
fn power_off_is_told_before_the_end_and_stops_a_machine_that_is_to_stay() {
    let path = temporary("qmp-off.sock");
    let option = format!("socket,id=q,path={},server=on,wait=off", path.display());
    let arguments = ["-serial", "stdio", "-no-shutdown", "-chardev", &option, "-mon", "q,mode=control"];
    let mut emu = Emulator::start("qmp-off", &arguments);
    let mut client = Client::connect(&path);
    client.answers.expect("\r\n");
    client.ask("{\"execute\": \"qmp_capabilities\"}");
    emu.output.expect("ready\n");
    emu.type_keys(b"q");
    assert!(client.event().contains("{\"guest\": true, \"reason\": \"guest-shutdown\"}"));
    assert!(client.event().contains("\"STOP\""));
    assert!(client.ask("{\"execute\": \"query-status\"}").contains("\"status\": \"shutdown\""));
    let refused = client.ask("{\"execute\": \"cont\"}");
    assert!(refused.contains("Resetting the Virtual Machine is required"), "{refused}");
    // The next client has to negotiate again.
    client.socket.shutdown(std::net::Shutdown::Both).unwrap();
    let mut client = Client::connect(&path);
    client.answers.expect("\r\n");
    assert!(client.ask("{\"execute\": \"quit\"}").contains("Expecting capabilities negotiation"));
    client.ask("{\"execute\": \"qmp_capabilities\"}");
    client.ask("{\"execute\": \"quit\"}");
    assert_eq!(emu.wait(), Some(0));
}
