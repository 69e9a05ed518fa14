//! Moves bytes between guest and host by TCP through the user network of emu and of QEMU, in alternation, on each network card and each
//! way, and prints a table of rates and of what they cost the host.
//!
//! Before the first run: `cargo build --release -p emu-frontend` and `scripts/guests.sh`.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;

use clap::Parser;
use emu_benches::throughput::{self, Case, Row};
use emu_tests::guest::{cached, network_modules};

#[derive(Parser)]
#[command(about = "Compares the throughput of emu's network cards behind the user network with QEMU's")]
struct Options {
    /// How often each machine runs.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Only cards whose name contains one of these.
    only: Vec<String>,
}

/// A card, and the MiB that it moves.
const CARDS: [(&str, u64); 3] = [("e1000", 64), ("virtio-net-pci", 64), ("ne2k_pci", 16)];

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(table) => {
            print!("{table}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("networks: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<String, String> {
    let initramfs = cached("amd64", "net.cpio").map_err(|error| error.to_string())?;
    let mut pairs = Vec::new();
    for (card, mib) in CARDS {
        if !options.only.is_empty() && !options.only.iter().any(|word| card.contains(word)) {
            continue;
        }
        let source = serve(move |stream| send(stream, mib << 20))?;
        let sink = serve(|stream| std::io::copy(stream, &mut std::io::sink()).map(|_| ()))?;
        let row = |way: &str, command: String| Row {
            name: format!("{card}: {way}"),
            // The shell's echo of the line says it otherwise.
            command: format!("echo D:''begin; {command} && echo D:''end"),
            bytes: mib << 20,
        };
        let case = Case {
            options: vec!["-netdev".into(), "user,id=n".into(), "-device".into(), format!("{card},netdev=n,romfile=")],
            initramfs: initramfs.clone(),
            setup: format!(
                "for m in {}; do insmod /lib/net/*-$m.ko; done; udhcpc -i eth0 -s /etc/udhcpc/default.script -n -q",
                network_modules(card)
            ),
            rows: vec![
                row("host to guest", format!("nc 10.0.2.2 {source} </dev/null >/dev/null")),
                row(
                    "guest to host",
                    format!("dd if=/dev/zero bs=64k count={} 2>/dev/null | nc 10.0.2.2 {sink}", mib * 16),
                ),
            ],
        };
        pairs.extend(throughput::compare(&case, options.rounds)?);
    }
    Ok(throughput::table(&pairs))
}

/// Has `answer` talk to whoever connects, one after the other; the port.
fn serve(answer: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + 'static) -> Result<u16, String> {
    let listen = || -> std::io::Result<(TcpListener, u16)> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        Ok((listener, port))
    };
    let (listener, port) = listen().map_err(|error| format!("cannot listen: {error}"))?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // The guest tells of what goes wrong.
            let _ = answer(&mut stream);
        }
    });
    Ok(port)
}

/// Sends so many bytes, and waits for the other side to end.
fn send(stream: &mut TcpStream, bytes: u64) -> std::io::Result<()> {
    let chunk = vec![0x5a; 64 << 10];
    for _ in 0..bytes / chunk.len() as u64 {
        stream.write_all(&chunk)?;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.read(&mut [0; 1]).map(|_| ())
}
