use super::*;
use crate::log::LogItems;
use crate::remote::Identity;
use emu_core::clock::ClockMode;
use emu_core::cpu::model::CpuModel;
use emu_devices::board::machine::MachineOptions;
use emu_devices::board::pc::{Pc, PcBoot, PcConfig};
use emu_devices::rtc::StartTime;
use emu_devices::storage::block::{Disk, Media};
use emu_devices::storage::image::MemoryImage;
use std::path::PathBuf;

/// A PC that is stopped at its reset vector, on a thread of its own until the test ends.
struct Bench {
    remote: Arc<Remote>,
    session: Session,
}

fn config() -> PcConfig {
    PcConfig {
        ram: 2 << 20,
        model: Arc::new(CpuModel::parse("max").unwrap()),
        clock: ClockMode::Icount { shift: 0 },
        date: StartTime { seconds: 0, nanos: 0 },
        serials: Default::default(),
        parallel: None,
        debugcon: None,
        debug_exit: None,
        testdev: false,
        audio: Default::default(),
        floppies: Default::default(),
        expansion: Default::default(),
        vga: None,
        ide: Default::default(),
        boot: PcBoot::ResetVector,
        firmware: Default::default(),
        options: MachineOptions { paused: true, ..MachineOptions::default() },
    }
}

fn identity() -> Identity {
    let chardevs = vec![("serial0".into(), "stdio".into()), ("compat_monitor0".into(), "unix:/m,server=on".into())];
    Identity { name: "guest".into(), uuid: std::array::from_fn(|i| 0x11 * i as u8), chardevs }
}

impl Bench {
    fn new() -> Bench {
        Bench::with(Vec::new())
    }

    fn with(media: Vec<Media>) -> Bench {
        // A processor cannot leave the thread that it was made on.
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut pc = Pc::new(config()).unwrap();
            pc.media = media;
            sender.send(Arc::new(Remote::new(&pc, identity(), Vec::new()))).unwrap();
            let mut machine = pc.machine;
            machine.run().map(drop).unwrap();
        });
        Bench { remote: receiver.recv().unwrap(), session: Session::default() }
    }

    fn run(&mut self, line: &str) -> String {
        execute(&mut self.session, &self.remote, line)
    }

    fn write(&self, address: u64, bytes: &'static [u8]) {
        self.remote.call(move |machine| machine.bus().memory().write(address, bytes)).unwrap();
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.remote.call(|machine| machine.quit());
    }
}

#[test]
fn media_are_shown_and_ejected() {
    let disk = Disk::new("ide1-cd0", true, ClockMode::Icount { shift: 0 }).unwrap();
    let fixed = Disk::new("ide0-hd0", false, ClockMode::Icount { shift: 0 }).unwrap();
    disk.media().insert("a.iso", Box::new(MemoryImage::zeros(2048)), false).unwrap();
    let mut bench = Bench::with(vec![fixed.media(), disk.media()]);
    assert_eq!(
        bench.run("info block"),
        "ide0-hd0: [not inserted]\n\nide1-cd0: a.iso (raw)\n    Removable device: not locked, tray closed\n"
    );
    assert_eq!(bench.run("eject ide0-hd0"), "Error: Device 'ide0-hd0' is not removable\n");
    assert_eq!(bench.run("eject foo"), "Error: Device 'foo' not found\n");
    assert_eq!(bench.run("eject"), "eject: block device name expected\nTry \"help eject\" for more information\n");
    assert_eq!(bench.run("eject -f ide1-cd0"), "");
    let shown = bench.run("info block ide1-cd0");
    assert_eq!(shown, "ide1-cd0: [not inserted]\n    Removable device: not locked, tray open\n");
    let path = temporary("medium.iso");
    std::fs::write(&path, [0; 2048]).unwrap();
    assert_eq!(bench.run(&format!("change ide1-cd0 {}", path.display())), "");
    assert!(bench.run("info block ide1-cd0").contains("medium.iso (raw, read-only)\n"));
    std::fs::remove_file(path).unwrap();
    let gone = bench.run("change ide1-cd0 /nonexistent/x");
    assert!(gone.starts_with("Error: Could not open '/nonexistent/x': ") && gone.lines().count() == 1, "{gone}");
    assert!(bench.run("change ide1-cd0 x qcow9").starts_with("Error: Unknown driver 'qcow9'"));
    assert!(bench.run("change ide0-hd0 /nonexistent/x").starts_with("Error: "));
}

fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("emu-monitor-{}-{name}", std::process::id()))
}

#[test]
fn stop_and_cont_change_the_status() {
    let mut bench = Bench::new();
    assert_eq!(bench.run(" info  status "), "VM status: paused (prelaunch)\n");
    bench.write(0, &[0]);
    assert_eq!(bench.run("c"), "");
    assert_eq!(bench.run("info status"), "VM status: running\n");
    assert_eq!(bench.run("stop"), "");
    assert_eq!(bench.run("info status"), "VM status: paused\n");
    assert_eq!(bench.run("info name"), "guest\n");
    assert_eq!(bench.run("info uuid"), "00112233-4455-6677-8899-aabbccddeeff\n");
    assert_eq!(bench.run("info chardev"), "serial0: filename=stdio\ncompat_monitor0: filename=unix:/m,server=on\n");
    assert_eq!(bench.run("system_reset"), "");
    assert_eq!(bench.run("info status"), "VM status: paused (prelaunch)\n");
}

#[test]
fn mistakes_are_answered_in_qemus_words() {
    let mut bench = Bench::new();
    for (line, answer) in [
        ("frobnicate 1", "unknown command: 'frobnicate'\n"),
        ("info foo", "unknown command: 'info foo'\n"),
        ("  ", ""),
        ("x", "unexpected end of expression\nTry \"help x\" for more information\n"),
        ("x/2z 0", "invalid char in format: 'z'\nTry \"help x\" for more information\n"),
        ("p $foo", "unknown register\nTry \"help p\" for more information\n"),
        ("sendkey", "sendkey: string expected\nTry \"help sendkey\" for more information\n"),
        ("sendkey foo", "invalid parameter: foo\n"),
        ("sendkey ctrl-foo", "invalid parameter: foo\n"),
        ("sendkey a b", "invalid char 'b' in expression\nTry \"help sendkey\" for more information\n"),
        ("stop extra", "stop|s: extraneous characters at the end of line\nTry \"help stop\" for more information\n"),
        ("screendump", "screendump: filename expected\nTry \"help screendump\" for more information\n"),
        ("screendump -f gif x", "Error: invalid parameter value: gif\n"),
        ("screendump x", "Error: There is no console to take a screendump from\n"),
        ("pmemsave 0 1 \"/nonexistent/x\"", "Error: Could not open '/nonexistent/x': No such file or directory\n"),
        ("boot_set", "boot_set: string expected\nTry \"help boot_set\" for more information\n"),
        ("boot_set cx", "Invalid boot device 'x'\n"),
        ("boot_set cc", "Boot device 'c' was given twice\n"),
        ("boot_set acdn", "Too many boot devices for PC\n"),
        ("boot_set dc", "boot device list now set to dc\n"),
        ("cpu 0", ""),
        ("cpu 1", "invalid CPU index\n"),
        ("mouse_set 0", ""),
        ("mouse_set 9", "Mouse at index '9' not found\n"),
        ("logfile /nonexistent/x", "Error: Error opening logfile /nonexistent/x: No such file or directory\n"),
        ("info network", ""),
        ("help foo", "unknown command: 'foo'\n"),
        ("help stop", "stop|s  -- stop emulation\n"),
        ("log foo", &LogItems::help()),
    ] {
        assert_eq!(bench.run(line), answer, "{line}");
    }
    let help = bench.run("help");
    assert!(help.contains("\nsystem_reset  -- ") && help.lines().is_sorted(), "{help}");
    // What help lists is there.
    for line in help.lines() {
        let name = line.split([' ', '|']).next().unwrap();
        assert!(
            !["unknown", ""].contains(&name) && !bench.run(&format!("help {name}")).starts_with("unknown"),
            "{line}"
        );
    }
    assert!(bench.run("info").contains("\ninfo registers [-a] -- "));
}

#[test]
fn memory_is_shown_as_qemu_shows_it() {
    let mut bench = Bench::new();
    bench.write(0x1000, b"\xea\x5b\xe0\x00\xf0\x30\x36\x2f\x32\x33\x2f\x39\x39\x00\xfc\x00");
    for (line, answer) in [
        ("xp/2xg 0x1000", "0000000000001000: 0x2f3630f000e05bea 0x00fc0039392f3332\n"),
        ("xp/2dw 0x1000", "0000000000001000:   14703594  792080624\n"),
        ("xp/2uh 0x1000", "0000000000001000: 23530   224\n"),
        ("xp/2ob 0x1000", "0000000000001000: 0352 0133\n"),
        ("xp/8cb 0x1004", "0000000000001004: '\\xf0' '0' '6' '/' '2' '3' '/' '9'\n"),
        ("x/9xb 0x1000", "0000000000001000: 0xea 0x5b 0xe0 0x00 0xf0 0x30 0x36 0x2f\n0000000000001008: 0x32\n"),
        ("x/i 0x1000", "0x00001000:  ea 5b e0 00 f0           jmp 0F000h:0E05Bh\n"),
        // The last format, of an instruction, shows a number in decimal.
        ("print 1+2*3", "7\n"),
        ("p/c 65", "'A'\n"),
        ("p/x -1", "0xffffffffffffffff\n"),
        ("p $eip", "0xfff0\n"),
        ("p/d 0x10", "16\n"),
        ("sum 0x1000 4", "00164\n"),
        ("sum 0xffffffff 0", "00000\n"),
        ("gva2gpa 0x1234", "gpa: 0x1234\n"),
        ("gva2gpa 0", "gpa: 0\n"),
    ] {
        assert_eq!(bench.run(line), answer, "{line}");
    }
}

#[test]
fn memory_is_saved_whole() {
    let mut bench = Bench::new();
    bench.write(0x1000, b"mango");
    let path = temporary("memory");
    assert_eq!(bench.run(&format!("pmemsave 0x1000 5 \"{}\"", path.display())), "");
    assert_eq!(std::fs::read(&path).unwrap(), b"mango");
    assert_eq!(bench.run(&format!("memsave 0xfff 0x100001 \"{}\"", path.display())), "");
    assert_eq!(std::fs::read(&path).unwrap().len(), 0x10_0001);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn ports_are_read_and_written() {
    let mut bench = Bench::new();
    // The mask of the master 8259.
    assert_eq!(bench.run("o/b 0x21 0xa5"), "");
    assert_eq!(bench.run("i/b 0x21"), "portb[0x0021] = 0xa5\n");
    assert!(bench.run("info pic").contains("pic0: irr=00 imr=a5 isr=00 hprio=0 irq_base=00 rr_sel=0 elcr=00 fnm=0\n"));
    // CMOS register 0Fh through index and data port.
    assert_eq!(bench.run("i /b 0x70 0x0f"), "portb[0x0071] = 0x00\n");
}

#[test]
fn controllers_and_functions_are_listed() {
    let mut bench = Bench::new();
    let pic = bench.run("info pic");
    assert!(pic.starts_with("ioapic0: ver=0x20 id=0x00 sel=0x00\n"), "{pic}");
    assert!(pic.contains("  pin 23 0x0000000000010000 dest=0 vec=0   active-hi edge  masked fixed  physical\n"));
    assert!(pic.contains("  IRR      (none)\n  Remote IRR (none)\n"));
    assert!(bench.run("info irq").starts_with("IRQ statistics for isa-i8259:\n"));
    let pci = bench.run("info pci");
    assert!(pci.starts_with("  Bus  0, device   0, function 0:\n    Host bridge: PCI device 8086:1237\n"), "{pci}");
    assert!(
        pci.contains("    ISA bridge: PCI device 8086:7000\n      PCI subsystem 1af4:1100\n      id \"\"\n"),
        "{pci}"
    );
    let tree = bench.run("info mtree");
    for line in [
        "address-space: memory\n  0000000000000000-ffffffffffffffff (prio 0, i/o): system\n",
        "    0000000000000000-00000000001fffff (prio 0, ram): ram-below-4g\n",
        "    00000000fec00000-00000000fec00fff (prio 0, i/o): ioapic\n",
        "\naddress-space: I/O\n  0000000000000000-000000000000ffff (prio 0, i/o): io\n",
        "    0000000000000070-0000000000000071 (prio 0, i/o): mc146818\n",
    ] {
        assert!(tree.contains(line), "{line}{tree}");
    }
    assert_eq!(bench.run("boot_set dc"), "boot device list now set to dc\n");
    assert_eq!(bench.run("i/b 0x70 0x3d"), "portb[0x0071] = 0x23\n");
    assert_eq!(bench.run("info mem"), "PG disabled\n");
    assert_eq!(bench.run("info tlb"), "PG disabled\n");
    assert!(bench.run("info registers -a").contains("EIP=0000fff0"));
}

#[test]
fn page_tables_are_shown_as_ranges_and_as_pages() {
    let mut bench = Bench::new();
    // A page directory at 1000h, a page table at 2000h that maps two pages for all and one for the supervisor only.
    bench.write(0x1000, &[0x07, 0x20, 0, 0]);
    bench.write(0x2000, &[0x07, 0x50, 0, 0, 0x67, 0x60, 0, 0, 0x01, 0x70, 0, 0]);
    bench.remote.call(|machine| {
        let state = &mut machine.processor().state;
        state.cr3 = 0x1000;
        state.cr0 |= 0x8000_0001;
    });
    assert_eq!(
        bench.run("info mem"),
        "0000000000000000-0000000000002000 0000000000002000 urw\n\
         0000000000002000-0000000000003000 0000000000001000 -r-\n"
    );
    assert_eq!(
        bench.run("info tlb"),
        "0000000000000000: 0000000000005000 -------UW\n0000000000001000: 0000000000006000 ---DA--UW\n\
         0000000000002000: 0000000000007000 ---------\n"
    );
    assert_eq!(bench.run("x/2xb 0x3000"), "0000000000003000: Cannot access memory\n");
}

#[test]
fn keys_and_mouse_reach_the_controller() {
    let mut bench = Bench::new();
    bench.write(0x10_0000, b"\xeb\xfe");
    bench.remote.call(|machine| machine.processor().state.rip = 0);
    assert_eq!(bench.run("sendkey a-b 1"), "");
    assert_eq!(bench.run("mouse_move 5 -3 1"), "");
    assert_eq!(bench.run("mouse_button 5"), "");
    assert_eq!(bench.run("mouse_button 0"), "");
    bench.run("cont");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    // The status port says that a byte waits; data is the scan code in set 2 until somebody turns translation on.
    while bench.run("i/b 0x64") != "portb[0x0064] = 0x1d\n" && std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    bench.run("stop");
    assert_eq!(bench.run("i/b 0x60"), "portb[0x0060] = 0x1e\n");
}
