//! Network cards with their drivers: Linux's, iPXE's, and a packet driver of our own. All machines run in this process, on a network in memory.

use emu_core::clock::ClockMode;
use emu_core::cpu::model::CpuModel;
use emu_core::device::Region;
use emu_devices::board::expansion::{Card, Expansion};
use emu_devices::board::firmware::FirmwareConfig;
use emu_devices::board::kernel::{Kernel, KernelOptions};
use emu_devices::board::machine::{MachineOptions, Outcome};
use emu_devices::board::pc::{Pc, PcBoot, PcConfig};
use emu_devices::board::rom::Rom;
use emu_devices::char::MemoryBackend;
use emu_devices::net::{MacAddress, NicConfig};
use emu_devices::rtc::StartTime;
use emu_devices::video::VgaConfig;
use emu_jit::Jit;
use emu_tests::guest::cached;
use emu_tests::lan::{Lan, STATION_MAC, ethernet};
use emu_tests::packet_driver;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// For a machine that is busy with other things.
const LIMIT: Duration = Duration::from_secs(300);
/// Ports of the debug console and the debug exit.
const CONSOLE: u16 = 0xe9;
const EXIT: u16 = 0xf4;
/// The first card's address.
const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

fn file(folder: &str, name: &str) -> Vec<u8> {
    let path = cached(folder, name).unwrap_or_else(|error| panic!("{error}"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Which card.
#[derive(Clone, Copy, Debug)]
enum Model {
    Ne2kIsa,
    Ne2kPci,
    E1000,
}

impl Model {
    /// The card with this number in a slot, at the end of `lan`.
    fn plug(self, number: u8, lan: &Lan, rom: &[u8]) -> Expansion {
        let nic = NicConfig { mac: MacAddress::numbered(number), backend: Box::new(lan.clone()), rom: rom.into() };
        let card = match self {
            Model::Ne2kIsa => Card::Ne2kIsa { base: 0x300, irq: 3, nic },
            Model::Ne2kPci => Card::Ne2kPci(nic),
            Model::E1000 => Card::E1000(nic),
        };
        Expansion { card, device: None }
    }
}

/// What a machine has said when it ended.
struct Ended {
    outcome: Outcome,
    serial: String,
    console: String,
    screen: String,
}

/// Runs a machine with `cards` until it ends; an instruction takes `1 << shift` nanoseconds.
fn run(boot: PcBoot, firmware: FirmwareConfig, vga: bool, shift: u8, cards: Vec<Expansion>) -> Ended {
    let (serial, console) = (MemoryBackend::new(), MemoryBackend::new());
    let pc = Pc::new(PcConfig {
        ram: 256 << 20,
        model: Arc::new(CpuModel::max()),
        clock: ClockMode::Icount { shift },
        date: StartTime { seconds: 1_700_000_000, nanos: 0 },
        serials: [Some(Box::new(serial.clone())), None, None, None],
        parallel: None,
        debugcon: Some((CONSOLE, Box::new(console.clone()))),
        debug_exit: Some(Region { base: EXIT.into(), len: 4 }),
        testdev: false,
        audio: Default::default(),
        floppies: Default::default(),
        expansion: cards,
        vga: vga.then(|| VgaConfig { rom: Some(firmware::VGA_BIOS.to_vec()), ..VgaConfig::default() }),
        ide: Default::default(),
        boot,
        firmware,
        options: MachineOptions { no_reboot: true, icount_sleep: false, ..MachineOptions::default() },
    })
    .expect("256 MiB and some cards are possible");
    let mut machine = pc.machine;
    machine.processor().set_compiler(Jit::new(emu_jit::CAPACITY).ok().map(|jit| Box::new(jit) as _));
    let control = machine.control();
    let (done, waiting) = channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if waiting.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
            control.post(|machine| machine.quit());
        }
    });
    let outcome = machine.run().expect("what boots was loaded once already");
    drop(done);
    watchdog.join().expect("it does not panic");
    let text = |backend: MemoryBackend| String::from_utf8_lossy(&backend.take_output()).into_owned();
    let screen = pc.display.and_then(|display| display.text()).map_or_else(String::new, |text| {
        let row = |cells: &[emu_devices::video::Cell]| {
            cells.iter().map(|cell| char::from(cell.character)).collect::<String>()
        };
        text.cells.chunks(text.columns).map(|cells| row(cells).trim_end().to_string() + "\n").collect()
    });
    Ended { outcome, serial: text(serial), console: text(console), screen }
}

/// Linux loads `modules`, and on each card, one after the other, gets an address by DHCP and pings the station, with frames of all sizes.
fn linux(arch: &str, models: &[Model], modules: &str) {
    let kernel = Kernel::parse(&file(arch, "linux")).expect("Debian's kernel is a kernel");
    let mut commands = modules.to_string();
    for card in 0..models.len() {
        commands += &format!(
            "; udhcpc -i eth{card} -n -q -t 5; ping -c 3 10.0.2.2; ping -c 3 -s 1472 10.0.2.2; ifconfig eth{card}; ifconfig eth{card} down"
        );
    }
    let options = KernelOptions {
        command_line: format!("console=ttyS0 quiet emu_run=\"{commands}; cat /proc/interrupts\"").into_bytes(),
        initrd: file(arch, "net.cpio"),
        ..KernelOptions::default()
    };
    let boot = PcBoot::Kernel(Box::new(kernel), options);
    let cards = (0..).zip(models).map(|(number, model)| model.plug(number, &Lan::new("", []), &[])).collect();
    let ended = run(boot, FirmwareConfig::default(), false, 1, cards);
    let text = ended.serial.to_lowercase();
    assert_eq!(ended.outcome, Outcome::PowerOff, "{text}");
    for card in 0..models.len() {
        assert!(text.contains(&format!("emu-guest: eth{card} has 10.0.2.15")), "{text}");
        assert!(text.contains(&format!("hwaddr 52:54:00:12:34:5{}", 6 + card)), "{text}");
    }
    assert_eq!(text.matches("3 packets transmitted, 3 packets received").count(), 2 * models.len(), "{text}");
    assert!(text.contains("rx packets") && !text.contains("errors:1"), "{text}");
}

#[test]
fn linux_amd64_gets_an_address_on_each_card() {
    linux("amd64", &[Model::Ne2kPci, Model::E1000], "for m in 8390. ne2k-pci e1000; do insmod /lib/net/*-$m*; done");
}

#[test]
fn linux_i386_gets_an_address_on_each_card() {
    let modules =
        "for m in 8390. ne2k-pci e1000 8390p; do insmod /lib/net/*-$m*; done; insmod /lib/net/*-ne.ko io=0x300 irq=3";
    linux("i386", &[Model::Ne2kPci, Model::E1000, Model::Ne2kIsa], modules);
}

/// Firmware that iPXE's option ROM is run by.
enum Bios {
    BuiltIn,
    SeaBios,
}

/// A network boot program: says so on the debug console, and leaves by the debug exit.
fn boot_program() -> Vec<u8> {
    let mut program = Vec::new();
    for byte in b"booted by PXE" {
        // MOV AL, imm8; OUT 0xE9, AL.
        program.extend([0xb0, *byte, 0xe6, CONSOLE as u8]);
    }
    // XOR AX, AX; OUT 0xF4, AL; JMP to itself.
    program.extend([0x31, 0xc0, 0xe6, EXIT as u8, 0xeb, 0xfe]);
    // Longer than a block of any size.
    program.resize(5000, 0x90);
    program
}

/// Boots from the last of `cards` cards, each with a ROM of its own; the others have a cable that leads nowhere.
fn ipxe(model: Model, cards: u8, bios: Bios, rom: &str) {
    let lan = Lan::new("boot.0", [("boot.0", boot_program())]);
    let image = match bios {
        Bios::BuiltIn => firmware::BIOS.to_vec(),
        Bios::SeaBios => file("firmware", "bios-256k.bin"),
    };
    let boot = PcBoot::Firmware { rom: Rom::new(image).expect("a BIOS"), kernel: None };
    // The first card's slot is 3.
    let order = format!("/pci@i0cf8/ethernet@{}/ethernet-phy@0\0", 2 + cards);
    let files = vec![("bootorder".into(), order.into_bytes())];
    let firmware = FirmwareConfig { order: [4, 0, 0], files, ..FirmwareConfig::default() };
    let (nowhere, rom) = (Lan::new("", []), file("firmware", rom));
    let plug = |number| model.plug(number, if number + 1 == cards { &lan } else { &nowhere }, &rom);
    // iPXE waits for seconds, and looks for frames all the time.
    let ended = run(boot, firmware, true, 9, (0..cards).map(plug).collect());
    let log = lan.log();
    assert_eq!(ended.console.trim_start_matches(|c| c != 'b'), "booted by PXE", "{log:?}\n{}", ended.screen);
    assert_eq!(ended.outcome, Outcome::Exit(1), "{}", ended.screen);
    assert!(log.contains(&"dhcp request".into()) && log.contains(&"tftp boot.0".into()), "{log:?}");
}

#[test]
fn ipxe_boots_by_tftp_on_ne2k_pci_under_the_built_in_bios() {
    ipxe(Model::Ne2kPci, 1, Bios::BuiltIn, "pxe-ne2k_pci.rom");
}

#[test]
fn ipxe_boots_by_tftp_on_the_second_e1000_under_the_built_in_bios() {
    ipxe(Model::E1000, 2, Bios::BuiltIn, "pxe-e1000.rom");
}

#[test]
fn ipxe_boots_by_tftp_on_ne2k_pci_under_seabios() {
    ipxe(Model::Ne2kPci, 1, Bios::SeaBios, "pxe-ne2k_pci.rom");
}

#[test]
fn ipxe_boots_by_tftp_on_the_second_e1000_under_seabios() {
    ipxe(Model::E1000, 2, Bios::SeaBios, "pxe-e1000.rom");
}

#[test]
fn packet_driver_sends_back_what_it_receives() {
    // A hello from whoever has announced itself, then frames of all lengths, each when the one before has come back, more than the ring holds.
    let lan = Lan::new("", []);
    let user = lan.clone();
    let frames: Vec<Vec<u8>> =
        (60..=1514).step_by(37).map(|len| ethernet(&MAC, 0x88b5, &vec![len as u8; len - 14])).collect();
    let expected = frames.clone();
    let (stop, stopped) = channel::<()>();
    let far = std::thread::spawn(move || {
        let mut seen: Vec<Vec<u8>> = Vec::new();
        let mut sent = 0;
        while seen.len() <= frames.len()
            && stopped.recv_timeout(Duration::from_millis(1)) == Err(RecvTimeoutError::Timeout)
        {
            seen.extend(user.take_others());
            // Up to four on their way.
            while !seen.is_empty() && sent < frames.len() && sent < seen.len() + 3 {
                user.deliver(&frames[sent]);
                sent += 1;
            }
        }
        user.deliver(&ethernet(&MAC, packet_driver::END, &[0; 46]));
        seen
    });
    let rom = Rom::new(packet_driver::rom().expect("the driver assembles")).expect("64 KiB are a ROM");
    let boot = PcBoot::Firmware { rom, kernel: None };
    let ended = run(boot, FirmwareConfig::default(), false, 1, vec![Model::Ne2kIsa.plug(0, &lan, &[])]);
    drop(stop);
    let seen = far.join().expect("it does not panic");
    assert_eq!(ended.outcome, Outcome::Exit(1));
    assert_eq!(seen[0][..14], [&[0xff; 6][..], &MAC, &[0x88, 0xb5]].concat());
    assert_eq!(seen.len(), expected.len() + 1);
    for (back, frame) in seen[1..].iter().zip(&expected) {
        assert_eq!(back[..], [&STATION_MAC[..], &MAC, &frame[12..]].concat());
    }
}
