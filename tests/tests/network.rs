//! Debian's kernel on each network card behind the user network: an address by DHCP, files from the host, and files for the host by a
//! forwarded port, with the right checksums; two machines on one stream, whose packets a capture has; and iPXE, which boots the kernel by
//! HTTP. What takes longer is in the scripts of `tests/network`.

use emu_tests::guest::{Guest, GuestError, Machine, cached, network_modules};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(600);
/// Bytes that the guest fetches on one card, and on the others.
const MUCH: usize = 256 << 20;
const LITTLE: usize = 16 << 20;
/// Bytes that the host fetches from the guest.
const SERVED: usize = 16 << 20;

/// A file that goes when its test ends.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Temporary {
        Temporary(std::env::temp_dir().join(format!("emu-network-{}-{name}", std::process::id())))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Boots a guest with a card and these options, and loads the card's modules.
fn boot(model: &str, options: &[&str]) -> Result<Guest, GuestError> {
    let mut command = Machine::under_test().unwrap().command();
    command.args(["-m", "256", "-kernel"]).arg(cached("amd64", "linux")?);
    command.arg("-initrd").arg(cached("amd64", "net.cpio")?);
    command.args(["-append", "console=ttyS0 quiet"]).args(options);
    let mut guest = Guest::start(&mut command, LIMIT)?;
    guest.expect("emu# ")?;
    run(&mut guest, &format!("for m in {}; do insmod /lib/net/*-$m.ko; done", network_modules(model)), "")?;
    Ok(guest)
}

/// Has the guest run `line` and waits for `text`, then for the next prompt. What came before the text.
fn run(guest: &mut Guest, line: &str, text: &str) -> Result<String, GuestError> {
    guest.send_line(line)?;
    guest.expect("\n")?;
    let before = if text.is_empty() { String::new() } else { guest.expect(text)? };
    guest.expect("emu# ")?;
    Ok(before)
}

/// Bytes that look like no others, and their MD5 sum as md5sum says it.
fn contents(len: usize) -> (Vec<u8>, String) {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(len as u64).fill(&mut bytes);
    let sum = md5(&bytes);
    (bytes, sum)
}

fn md5(bytes: &[u8]) -> String {
    let mut child = Command::new("md5sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap()[..32].to_owned()
}

/// An HTTP server that answers everything with `contents`; its port.
fn serve(contents: Vec<u8>) -> u16 {
    serve_files(vec![("", contents)])
}

/// An HTTP server that answers with the first of `files` whose name the request begins with; its port.
fn serve_files(files: Vec<(&'static str, Vec<u8>)>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let asked = |name: &str| request.starts_with(format!("GET /{name}").as_bytes());
            let Some((_, contents)) = files.iter().find(|(name, _)| asked(name)) else { continue };
            let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", contents.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(contents));
        }
    });
    port
}

/// A port of this host that nobody has now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// `-netdev` of a user network called `n` whose guest's web server is at a port of this host, and that port.
fn user_network() -> (String, u16) {
    let forwarded = free_port();
    (format!("user,id=n,hostfwd=tcp:127.0.0.1:{forwarded}-:80"), forwarded)
}

/// The guest fetches so many bytes from this host, and this host what the guest serves on its side of the port `forwarded`.
fn reaches_and_is_reached(guest: &mut Guest, forwarded: u16, fetched: usize) -> Result<(), GuestError> {
    let (file, sum) = contents(fetched);
    let port = serve(file);
    let dhcp = "udhcpc -i eth0 -s /etc/udhcpc/default.script -n -q; cat /etc/resolv.conf";
    run(guest, dhcp, "emu-guest: eth0 has 10.0.2.15")?;
    run(guest, "ping -c 2 10.0.2.2", "2 packets received")?;
    run(guest, &format!("wget -q -O - http://10.0.2.2:{port}/ | md5sum"), &sum)?;
    run(guest, "cat /sys/class/net/eth0/statistics/rx_errors | sed 's/^/errors: /'", "errors: 0")?;
    // And what the guest makes up itself, back to the host.
    run(guest, "mkdir /www; httpd -p 80 -h /www", "")?;
    let line = format!("dd if=/dev/urandom of=/www/file bs=1M count={} 2>/dev/null; md5sum /www/file", SERVED >> 20);
    let sum = run(guest, &line, "  /www/file")?;
    let mut stream = TcpStream::connect(("127.0.0.1", forwarded)).unwrap();
    stream.write_all(b"GET /file HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let head = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    // The echo of a long line is before it.
    assert_eq!((answer.len() - head, md5(&answer[head..]).as_str()), (SERVED, &sum[sum.len() - 32..]));
    Ok(())
}

#[test]
fn ne2k_pci_reaches_the_host_and_is_reached() {
    let test = || -> Result<(), GuestError> {
        let (netdev, forwarded) = user_network();
        let mut guest = boot("ne2k_pci", &["-netdev", &netdev, "-device", "ne2k_pci,netdev=n"])?;
        reaches_and_is_reached(&mut guest, forwarded, LITTLE)?;
        guest.send_line("exit")?;
        assert!(guest.wait()?.success());
        Ok(())
    };
    test().unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn e1000_and_virtio_net_reach_the_host_and_each_other_on_a_stream_that_is_captured() {
    let port = free_port();
    let capture = Temporary::new("capture.pcap");
    let listen = format!("socket,id=s,listen=127.0.0.1:{port}");
    let connect = format!("socket,id=s,connect=127.0.0.1:{port}");
    let dump = format!("filter-dump,id=d,netdev=s,file={}", capture.0.display());
    let machines = || -> Result<(), GuestError> {
        let ((first_user, first_port), (second_user, second_port)) = (user_network(), user_network());
        let cards = ["-device", "e1000,netdev=n", "-device", "e1000,netdev=s", "-object", &dump];
        let mut first = boot("e1000", &[&["-netdev", &first_user, "-netdev", &listen], &cards[..]].concat())?;
        let cards = ["-device", "virtio-net-pci,netdev=n", "-device", "virtio-net-pci,netdev=s,mac=52:54:00:12:34:99"];
        let mut second =
            boot("virtio-net-pci", &[&["-netdev", &second_user, "-netdev", &connect], &cards[..]].concat())?;
        reaches_and_is_reached(&mut first, first_port, LITTLE)?;
        reaches_and_is_reached(&mut second, second_port, MUCH)?;
        run(&mut first, "ifconfig eth1 192.168.7.1", "")?;
        run(&mut second, "ifconfig eth1 192.168.7.2", "")?;
        run(&mut second, "ping -c 3 192.168.7.1", "3 packets received")?;
        for mut guest in [first, second] {
            guest.send_line("exit")?;
            assert!(guest.wait()?.success());
        }
        Ok(())
    };
    machines().unwrap_or_else(|error| panic!("{error}"));
    // Requests and answers, and the questions for addresses before them.
    let bytes = std::fs::read(&capture.0).unwrap();
    let mut rest = &bytes[24..];
    let (mut echoes, mut questions) = (0, 0);
    while let Some(header) = rest.get(..16) {
        let len = u32::from_ne_bytes(header[8..12].try_into().unwrap()) as usize;
        let frame = &rest[16..16 + len];
        match frame[12..14] {
            [8, 0] if frame[23] == 1 => echoes += 1,
            [8, 6] => questions += 1,
            _ => {}
        }
        rest = &rest[16 + len..];
    }
    assert!(rest.is_empty() && echoes >= 6 && questions >= 2, "{echoes} {questions}");
}

#[test]
fn ipxe_boots_linux_by_http_from_a_user_network() {
    let read = |name: &str| std::fs::read(cached("i386", name).unwrap_or_else(|e| panic!("{e}"))).unwrap();
    let script =
        "#!ipxe\nkernel linux console=ttyS0 quiet emu_run=uname initrd=busybox.cpio\ninitrd busybox.cpio\nboot\n";
    let files = [("boot.ipxe", script.into()), ("linux", read("linux")), ("busybox.cpio", read("busybox.cpio"))];
    let port = serve_files(files.into());
    let test = || -> Result<(), GuestError> {
        let rom = cached("firmware", "pxe-e1000.rom")?;
        let mut command = Machine::under_test().unwrap().command();
        command.args(["-m", "256", "-boot", "n", "-netdev"]);
        command.arg(format!("user,id=n,bootfile=http://10.0.2.2:{port}/boot.ipxe"));
        command.arg("-device").arg(format!("e1000,netdev=n,romfile={}", rom.display()));
        let mut guest = Guest::start(&mut command, LIMIT)?;
        guest.expect("emu-guest: ready")?;
        assert!(guest.wait()?.success());
        Ok(())
    };
    test().unwrap_or_else(|error| panic!("{error}"));
}
