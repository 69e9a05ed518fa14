//! Hostile guests: random register traffic, random waits, damaged snapshots, for a bounded time.
//!
//! Nothing may panic, hang or grow without bound. Each device runs alone on a test bench, then a whole PC on its bus.
//! A failure names its seed.

use crate::audio::sb16::{self, Sb16, Sb16Config};
use crate::audio::{MemoryBackend as Recording, Mixer};
use crate::board::machine::MachineOptions;
use crate::board::pc::{AudioConfig, Pc, PcBoot, PcConfig};
use crate::board::post;
use crate::char::debug_exit::DebugExit;
use crate::char::debugcon::{self, Debugcon};
use crate::char::parallel::{self, Parallel};
use crate::char::uart16550::Uart16550;
use crate::char::{CharBackend, MemoryBackend};
use crate::dma::i8237::Dma;
use crate::input::i8042::I8042;
use crate::input::{Button, InputEvent, InputQueue, Key};
use crate::intc::ioapic::{self, IoApic};
use crate::intc::lapic::{Lapic, LapicFeatures};
use crate::intc::pic::Pic;
use crate::net::e1000::{self, E1000};
use crate::net::ne2k_isa::Ne2kIsa;
use crate::net::ne2k_pci::Ne2kPci;
use crate::net::{MacAddress, MemoryNetwork, NicConfig, dp8390};
use crate::pc_testdev::{self, PcTestdev};
use crate::pci::PciFunction;
use crate::pci::config::BAR_TAG;
use crate::pci::option_rom::{self, Host};
use crate::pci::piix4::{Piix4Pm, SMBUS_TAG};
use crate::port92::Port92;
use crate::rtc::{Rtc, StartTime};
use crate::smbus;
use crate::storage::block::{Disk, Media};
use crate::storage::fdc::{Drive, Fdc};
use crate::storage::ide::{DriveConfig, Ide, Kind, Names};
use crate::storage::image::MemoryImage;
use crate::testbench::{Bench, World};
use crate::timer::hpet::{self, Hpet, HpetLines};
use crate::timer::pit::Pit;
use crate::video::vga::{self, Vga};
use crate::video::{Frame, MAX_HEIGHT, MAX_WIDTH, VgaConfig};
use crate::virtio::VirtioDevice;
use crate::virtio::balloon::Balloon;
use crate::virtio::block::{Block, BlockConfig};
use crate::virtio::console::{Console, Port};
use crate::virtio::net::{Net, NetOptions};
use crate::virtio::pci::{Interrupts, VirtioOptions, VirtioPci};
use crate::virtio::rng::{Quota, Rng as VirtioRng};
use emu_core::clock::{ClockMode, Instant};
use emu_core::cpu::model::CpuModel;
use emu_core::cpu::random::Random;
use emu_core::device::{Device, Region, ResetKind, Space, ports};
use emu_core::irq::{CpuPins, InterruptSource, IrqInput, IrqLine};
use fastrand::Rng;
use serde_json::Value;
use std::cell::RefCell;
use std::sync::Arc;

const SEEDS: u64 = 8;
const STEPS: u32 = 10_000;
/// Bytes of JSON that no device's state exceeds.
const STATE: usize = 500_000;

/// A value as hostile guests like it: any, small, or a boundary.
fn value(random: &mut Rng) -> u64 {
    match random.u8(0..4) {
        0 => random.u64(..),
        1 => random.u64(0..256),
        2 => 1 << random.u8(0..64),
        _ => u64::MAX << random.u8(0..64),
    }
}

/// Nanoseconds to wait.
fn wait(random: &mut Rng) -> u64 {
    match random.u8(0..16) {
        0 => random.u64(0..10_000_000_000_000),
        1..4 => random.u64(0..1_000_000_000),
        _ => random.u64(0..100_000),
    }
}

/// One access somewhere in `regions`, or just beyond.
fn access(random: &mut Rng, regions: &[(Space, Region)]) -> (Space, u64, u8) {
    let (space, region) = regions[random.usize(0..regions.len())];
    let size = match space {
        Space::Port => 1 << random.u8(0..3),
        Space::Memory => 1 << random.u8(0..4),
    };
    let offset = if random.u8(0..4) == 0 { random.u64(0..region.len + 4) } else { random.u64(0..region.len.min(64)) };
    (space, region.base + offset, size)
}

/// Changes a few numbers and flags of a snapshot, and lengthens or empties lists.
fn damage(random: &mut Rng, state: &mut Value) {
    match state {
        // Mostly within the width that the number seems to have, so that the result parses.
        Value::Number(n) if random.u8(0..8) == 0 => {
            *state = match n.as_u64() {
                _ if random.u8(0..64) == 0 => value(random).into(),
                Some(0..0x100) => random.u8(..).into(),
                Some(0x100..0x1_0000) => random.u16(..).into(),
                _ => value(random).into(),
            }
        }
        Value::Bool(b) if random.u8(0..8) == 0 => *b = !*b,
        Value::Array(items) => {
            if let (0, Some(item)) = (random.u8(0..16), items.first().cloned()) {
                // As many as make a megabyte, lest the test itself runs out of memory.
                let more = ((1 << 20) / item.to_string().len().max(1)).min(5000);
                items.extend(std::iter::repeat_n(item, more));
            } else if random.u8(0..16) == 0 {
                items.clear();
            }
            items.iter_mut().take(300).for_each(|item| damage(random, item));
        }
        Value::Object(fields) => fields.values_mut().for_each(|field| damage(random, field)),
        _ => {}
    }
}

/// Torments `device` with seed after seed; `meddle` does what other devices and users can do to it.
fn torment<D: Device>(build: impl Fn() -> D, extra: &[(Space, Region)], meddle: impl Fn(&mut Rng, &mut Bench<D>)) {
    torment_at(build, D::PORTS.len() as u32, extra, meddle);
}

/// [`torment`] with another tag for the `extra` regions than the one behind those of fixed ports.
fn torment_at<D: Device>(
    build: impl Fn() -> D,
    tag: u32,
    extra: &[(Space, Region)],
    meddle: impl Fn(&mut Rng, &mut Bench<D>),
) {
    let fixed = D::PORTS.iter().map(|region| (Space::Port, *region));
    let regions: Vec<_> = fixed.chain(extra.iter().copied()).collect();
    let mut restored = 0;
    for seed in 0..SEEDS {
        println!("{} seed {seed}", D::ID);
        let mut random = Rng::with_seed(seed);
        let mut bench = Bench::new(build());
        extra.iter().for_each(|(space, region)| bench.map(*space, *region, tag));
        for step in 0..STEPS {
            let (space, address, size) = access(&mut random, &regions);
            match random.u8(0..16) {
                0..8 => bench.write(space, address, size, value(&mut random)),
                8..12 => drop(bench.read(space, address, size)),
                12 => bench.advance(random.u64(0..50_000)),
                13 => bench.advance_late(wait(&mut random)),
                14 => bench.poll(),
                _ => meddle(&mut random, &mut bench),
            }
            bench.requests.clear();
            if step % 500 == 499 {
                let mut state = serde_json::to_value(bench.device.state()).expect("a state is JSON");
                assert!(state.to_string().len() < STATE, "the state of {} has grown", D::ID);
                damage(&mut random, &mut state);
                // A snapshot that does not parse is refused by the loader, so it harms nobody.
                if let Ok(state) = serde_json::from_value(state) {
                    bench.device.set_state(state);
                    bench.with(|device, cx| device.restored(cx));
                    restored += 1;
                }
            }
            if random.u16(..) == 0 {
                bench.reset(if random.bool() { ResetKind::Cold } else { ResetKind::Warm });
            }
        }
    }
    assert!(restored > SEEDS, "hardly any damaged state of {} parses: {restored}", D::ID);
}

fn line() -> IrqLine {
    IrqLine::unconnected()
}

#[test]
fn hostile_guest_cannot_break_the_8259_pair() {
    torment(
        || Pic::new(line()),
        &[],
        |random, bench| {
            let pair = bench.device.pair();
            pair.set_level(random.u32(0..20), random.bool());
            if random.bool() {
                pair.acknowledge();
            }
        },
    );
}

#[test]
fn hostile_guest_cannot_break_the_8254() {
    torment(|| Pit::new(line()), &[], |_, _| {});
}

#[test]
fn hostile_guest_cannot_break_the_clock() {
    torment(|| Rtc::new(line(), StartTime { seconds: 1_795_437_296, nanos: 5 }), &[], |_, _| {});
}

#[test]
fn hostile_guest_cannot_break_the_keyboard_controller() {
    let input = InputQueue::new();
    let user = input.clone();
    torment(
        move || I8042::new(line(), line(), input.clone()),
        &[],
        move |random, _| {
            let event = match random.u8(0..4) {
                0 => InputEvent::Motion { dx: random.i32(..), dy: random.i32(..) },
                1 => InputEvent::Wheel(random.i32(..)),
                2 => InputEvent::Button { button: Button::Extra, pressed: random.bool() },
                _ => InputEvent::Key { key: Key::ALL[random.usize(0..Key::ALL.len())], pressed: random.bool() },
            };
            user.send(event);
        },
    );
}

#[test]
fn hostile_guest_cannot_break_a_uart() {
    let far = MemoryBackend::new();
    let near = far.clone();
    torment(
        move || Uart16550::new(line(), Box::new(near.clone())),
        &[(Space::Port, ports(0x3f8, 8))],
        move |random, _| {
            far.take_output();
            far.set_room(random.bool().then(|| random.usize(0..20)));
            if far.unread() < 1000 {
                far.send(&[random.u8(..); 7]);
            }
            if random.bool() {
                far.send_break();
            }
        },
    );
}

#[test]
fn hostile_guest_cannot_break_the_dma_controllers() {
    torment(Dma::default, &[], |random, bench| {
        let channel = bench.device.channel(random.u8(..));
        let memory = bench.world.memory().clone();
        let mut buffer = vec![0; random.usize(0..100_000)];
        channel.set_request(random.bool());
        channel.read_memory(&memory, &mut buffer);
        channel.write_memory(&memory, &buffer);
    });
}

#[test]
fn hostile_guest_cannot_break_the_small_ports() {
    torment(Port92::default, &[], |_, _| {});
    torment(|| DebugExit, &[(Space::Port, DebugExit::DEFAULT)], |_, _| {});
    let console = || Debugcon::new(Box::new(MemoryBackend::new()));
    torment(|| PcTestdev::new(vec![line(); 24]), &[(Space::Memory, pc_testdev::MEMORY)], |_, _| {});
    torment(console, &[(Space::Port, ports(debugcon::PORT, 1))], |_, _| {});
    let printer = || Parallel::new(line(), Box::new(MemoryBackend::new()));
    torment(printer, &[(Space::Port, parallel::LPT1)], |_, _| {});
}

#[test]
fn hostile_guest_cannot_break_the_vga() {
    let config = VgaConfig { memory: 1 << 20, rom: Some(vec![0x55; 3000]), font: Vec::new() };
    let world = World::with_extra(1 << 20, 64 * vga::extra_memory(&config));
    let registers = Region { base: 0xfebf_0000, len: 0x1000 };
    let build = || Vga::new(&config, world.memory().clone(), Arc::new(CpuPins::default()));
    for tag in [vga::WINDOW_TAG, BAR_TAG + 2] {
        let region = if tag == vga::WINDOW_TAG { vga::WINDOW } else { registers };
        torment_at(build, tag, &[(Space::Memory, region)], |random, bench| {
            if random.u8(0..64) == 0 {
                let mut frame = Frame::default();
                let display = bench.device.display();
                display.refresh(Instant(random.u64(..)), &mut frame);
                assert!(frame.width <= MAX_WIDTH && frame.height <= MAX_HEIGHT);
                display.text();
            }
            bench.device.config().lock().write(random.u8(..), 4, value(random) as u32);
        });
    }
}

#[test]
fn hostile_guest_cannot_break_the_hpet() {
    let lines = || HpetLines { irq0: line(), irq8: line(), inputs: vec![line(); ioapic::PINS] };
    torment(|| Hpet::new(lines()), &[(Space::Memory, hpet::REGION)], |_, _| {});
}

const VIRTIO: Region = Region { base: 0xfeb0_0000, len: 0x4000 };

/// [`torment`] for a virtio device, by a driver that also knows how to begin, with its queues and buffers below 256 KiB.
fn torment_virtio<D: VirtioDevice>(build: impl Fn() -> D) {
    let function = || {
        let interrupts = Interrupts { intx: line(), messages: None };
        VirtioPci::new(build(), VirtioOptions::default(), interrupts)
    };
    torment_at(function, BAR_TAG + 4, &[(Space::Memory, VIRTIO)], |random, bench| {
        const QUEUES: u64 = 5;
        if random.u8(0..16) == 0 {
            let mut registers =
                vec![(20, 1, 0), (20, 1, 3), (12, 4, random.u64(0..1 << 32)), (8, 4, 1), (12, 4, 1), (20, 1, 11)];
            for queue in 0..QUEUES {
                let base = queue << 15;
                registers.extend([
                    (22, 2, queue),
                    (32, 8, base),
                    (40, 8, base + 0x4000),
                    (48, 8, base + 0x5000),
                    (28, 2, 1),
                ]);
            }
            registers.push((20, 1, 15));
            registers
                .into_iter()
                .for_each(|(at, size, value)| bench.write(Space::Memory, VIRTIO.base + at, size, value));
        }
        let memory = bench.world.memory().clone();
        let (queue, number) = (random.u64(0..QUEUES), random.u16(0..8));
        let address = if random.u8(0..16) == 0 { random.u64(..) } else { random.u64(0..0x4_0000) };
        let len = if random.u8(0..16) == 0 { random.u32(..) } else { random.u32(0..2000) };
        let descriptor = [
            &address.to_le_bytes()[..],
            &len.to_le_bytes(),
            &random.u16(0..8).to_le_bytes(),
            &(number + random.u16(0..3)).to_le_bytes(),
        ];
        memory.write((queue << 15) + 16 * u64::from(number), &descriptor.concat());
        memory.write(random.u64(0..0x4_0000), &[random.u8(0..16), 0, 0, 0]);
        let mut index = [0; 2];
        memory.read((queue << 15) + 0x4002, &mut index);
        let index = u16::from_le_bytes(index);
        memory.write((queue << 15) + 0x4004 + 2 * u64::from(index % 64), &number.to_le_bytes());
        memory.write((queue << 15) + 0x4002, &index.wrapping_add(1).to_le_bytes());
        bench.write(Space::Memory, VIRTIO.base + 0x3000 + 4 * queue, 2, queue);
        bench.device.config().lock().write(random.u8(..), 4, value(random) as u32);
    });
}

#[test]
fn hostile_guest_cannot_break_virtio_devices() {
    torment_virtio(|| {
        let clock = ClockMode::Icount { shift: 0 };
        let disk = Disk::with_image("d", false, clock, "f", Box::new(MemoryImage::zeros(2048))).unwrap();
        Block::new(disk, BlockConfig::default())
    });
    torment_virtio(|| {
        let far = MemoryNetwork::new();
        (0..50).for_each(|i| far.deliver(&vec![i; 14 + 40 * usize::from(i)]));
        Net::new(MacAddress::numbered(0), Box::new(far), NetOptions::default())
    });
    torment_virtio(|| {
        VirtioRng::new(Box::new(Random::seeded([1; 32])), Some(Quota { bytes: 10_000, period: 1_000_000 }))
    });
    torment_virtio(|| {
        let port = |number, console| {
            let backend = MemoryBackend::new();
            backend.send(&[7; 3000]);
            backend.set_room(Some(5000));
            Port { number, console, name: Some("name".into()), backend: Box::new(backend) }
        };
        Console::new(vec![port(0, true), port(1, false)], 4)
    });
    torment_virtio(|| Balloon::new(2 << 20, true));
}

#[test]
fn hostile_guest_cannot_break_the_smbus_controller() {
    let registers = [(Space::Port, ports(0x700, smbus::SIZE as u16))];
    torment_at(
        || Piix4Pm::new(line(), line()),
        SMBUS_TAG,
        &registers,
        |random, bench| {
            bench.device.config().lock().write(random.u8(..), 4, value(random) as u32);
            // A transaction with an EEPROM, with anything in its registers.
            bench.out8(0x700, 0x1e);
            bench.out8(0x704, random.u8(0xa0..0xb0));
            bench.out8(0x702, 0x40 | random.u8(0..8) << 2);
            bench.advance(random.u64(0..5_000_000));
        },
    );
}

#[test]
fn hostile_guest_cannot_break_the_apics() {
    let features = LapicFeatures { x2apic: true, tsc_deadline: true };
    let local = move || Lapic::new(0, Arc::new(CpuPins::default()), features);
    let page = Region { base: 0xfee0_0000, len: 0x1000 };
    torment(local, &[(Space::Memory, page)], |random, bench| {
        bench.device.core().acknowledge();
        let msr = if random.bool() { 0x800 + random.u32(0..0x40) } else { [0x1b, 0x6e0][random.usize(0..2)] };
        let value = value(random);
        bench.with(|device, cx| {
            if let Some(msrs) = device.msrs() {
                let _ = msrs.write_msr(cx, msr, value);
                let _ = msrs.read_msr(cx, msr);
                msrs.set_cr8(cx, value as u8);
            }
        });
    });
    torment(
        move || IoApic::new(local().core()),
        &[(Space::Memory, ioapic::REGION)],
        |random, bench| bench.device.core().set_level(random.u32(0..40), random.bool()),
    );
}

/// Two drives with small media, so that transfers end.
fn ide(clock: ClockMode) -> (Ide, Media) {
    let image = |len| Box::new(MemoryImage::zeros(len));
    let mut ide = Ide::new([line(), line()]);
    let disk = Disk::with_image("hd", false, clock, "disk", image(64 * 512)).expect("a thread");
    let cd = Disk::with_image("cd", true, clock, "disc", image(20 * 2048)).expect("a thread");
    let media = cd.media();
    ide.connect(0, DriveConfig { kind: Kind::Disk, disk, names: Names::default() });
    ide.connect(1, DriveConfig { kind: Kind::CdRom, disk: cd, names: Names::default() });
    ide.config().lock().write(4, 2, 5);
    (ide, media)
}

#[test]
fn hostile_guest_cannot_break_the_ide_function() {
    let handle = RefCell::new(None);
    torment(
        || {
            let (ide, media) = ide(ClockMode::Icount { shift: 0 });
            handle.replace(Some(media));
            ide
        },
        &[(Space::Port, ports(0xc000, 16))],
        |random, bench| {
            bench.device.config().lock().write(4, 2, random.u32(0..8));
            // A descriptor table where bus masters are likely to look.
            let bytes: Vec<u8> = (0..64).map(|_| random.u8(..)).collect();
            bench.world.memory().write(random.u64(0..0x1000), &bytes);
            // A selected drive and a command, whole, so that transfers happen at all.
            let commands = [0x20, 0x25, 0x30, 0x35, 0xa0, 0xc4, 0xc5, 0xc6, 0xc8, 0xca, 0xe7, 0xec];
            for (port, value) in [(0x3f6, 0), (0x1f1, random.u8(0..2)), (0x1f2, random.u8(0..20)), (0x1f3, 1)] {
                bench.out8(port, value);
            }
            bench.out8(0x1f6, [0xe0, 0xf0][random.usize(0..2)]);
            bench.out8(0x1f7, commands[random.usize(0..commands.len())]);
            if let (Some(media), true) = (&*handle.borrow(), random.u8(0..8) == 0) {
                let _ = match random.bool() {
                    true => media.eject(random.bool()),
                    false => media.insert("x", Box::new(MemoryImage::zeros(4096)), random.bool()),
                };
            }
            for _ in 0..random.u32(0..300) {
                bench.out16(0x1f0, random.u16(..));
                bench.in32(0x1f0);
            }
        },
    );
}

fn floppy() -> Disk {
    let image = Box::new(MemoryImage::zeros(368_640));
    Disk::with_image("floppy0", true, ClockMode::Icount { shift: 0 }, "a.img", image).expect("a thread")
}

fn sound() -> AudioConfig {
    AudioConfig {
        backends: vec![Some(Box::new(Recording::default()))],
        speaker: Some(0),
        sb16: Some((Sb16Config::default(), Some(0))),
    }
}

#[test]
fn hostile_guest_cannot_break_the_sound_card() {
    let dma = Dma::default();
    let recording = Recording::default();
    let build = || {
        let mixer = Mixer::new(Box::new(recording.clone()));
        let channels = std::array::from_fn(|channel| dma.channel(channel as u8));
        Sb16::new(Sb16Config::default(), std::array::from_fn(|_| line()), channels, mixer.voice())
    };
    // Tags: 0 for the DSP, MPU_TAG for the MPU-401.
    let dsp = [(Space::Port, ports(0x220, sb16::PORTS))];
    torment(build, &dsp, |random, bench| {
        // A DSP command with any parameters.
        (0..4).for_each(|_| bench.out8(0x22c, random.u8(..)));
        bench.advance(random.u64(0..2_000_000));
    });
    let mpu = [(Space::Port, ports(sb16::MPU_BASE, 2))];
    torment_at(build, sb16::MPU_TAG, &mpu, |random, bench| bench.out8(sb16::MPU_BASE, random.u8(..)));
}

fn nic(cable: &MemoryNetwork, rom: &[u8]) -> NicConfig {
    NicConfig { mac: MacAddress::numbered(0), backend: Box::new(cable.clone()), rom: rom.into() }
}

/// Frames of all lengths, mostly for the card or for everybody; what it has sent is thrown away.
fn traffic(random: &mut Rng, cable: &MemoryNetwork) {
    cable.take_sent();
    if cable.waiting() < 20 {
        let longest = [60, 1514, 9000, 65_550][random.usize(0..4)];
        let mut frame = vec![random.u8(..); random.usize(0..=longest)];
        let to = [MacAddress::numbered(0).0, [0xff; 6], [random.u8(..); 6]][random.usize(0..3)];
        frame.iter_mut().zip(to).for_each(|(byte, to)| *byte = to);
        cable.deliver(&frame);
    }
    if random.u8(0..32) == 0 {
        cable.set_link(random.bool());
    }
}

#[test]
fn hostile_guest_cannot_break_the_ne2000() {
    let cable = MemoryNetwork::new();
    let registers = [(Space::Port, ports(0x300, dp8390::PORTS))];
    let start = |random: &mut Rng, bench: &mut dyn FnMut(u16, u8)| {
        // Any ring, then a start and a command, so that frames move at all.
        for (register, value) in
            [(0, 0x21), (1, random.u8(..)), (2, random.u8(..)), (3, random.u8(..)), (4, random.u8(..))]
        {
            bench(register, value);
        }
        bench(0xc, random.u8(..));
        bench(0, 0x62);
        bench(7, random.u8(..));
        bench(0, 2 | random.u8(0..64) << 2 & 0x3c);
    };
    torment(
        || Ne2kIsa::new(nic(&cable, &[]), line()),
        &registers,
        |random, bench| {
            traffic(random, &cable);
            start(random, &mut |register, value| bench.out8(0x300 + register, value));
        },
    );
    let rom = [0x55, 0xaa, 1, 0xcb];
    let world = World::with_extra(1 << 20, 64 * option_rom::room(&rom));
    let host = Host { memory: world.memory().clone(), pins: Arc::default() };
    torment_at(
        || Ne2kPci::new(nic(&cable, &rom), line(), host.clone()),
        BAR_TAG,
        &registers,
        |random, bench| {
            bench.device.config().lock().write(random.u8(..), 4, value(random) as u32);
            traffic(random, &cable);
            start(random, &mut |register, value| bench.out8(0x300 + register, value));
        },
    );
}

#[test]
fn hostile_guest_cannot_break_the_e1000() {
    let cable = MemoryNetwork::new();
    let base = 0xfe00_0000;
    let registers = [(Space::Memory, Region { base, len: e1000::REGISTERS.into() })];
    let host = Host { memory: World::new(1 << 20).memory().clone(), pins: Arc::default() };
    torment_at(
        || {
            let card = E1000::new(nic(&cable, &[]), line(), host.clone());
            card.config().lock().write(4, 2, 7);
            card
        },
        BAR_TAG,
        &registers,
        |random, bench| {
            traffic(random, &cable);
            // Rings of descriptors with anything in them, where they are likely to be found; then doorbells.
            let bytes: Vec<u8> = (0..512).map(|_| random.u8(..)).collect();
            bench.world.memory().write(0x1000, &bytes);
            let mut set = |register: u64, value: u32| bench.write(Space::Memory, base + register, 4, value.into());
            for ring in [0x2800, 0x3800] {
                set(ring, 0x1000);
                set(ring + 4, 0);
                set(ring + 8, random.u32(..) & 0x3ff);
                set(ring + 0x10, random.u32(0..64));
            }
            set(0x400, 2);
            set(0x100, 2 | random.u32(..));
            set(0x2818, random.u32(0..64));
            set(0x3818, random.u32(0..64));
            // MDIO, which random values hardly reach.
            set(0x20, random.u32(..) & 0x0c1f_ffff | 1 << 21);
        },
    );
}

#[test]
fn hostile_guest_cannot_break_the_floppy_controller() {
    let dma = Dma::default();
    dma.channel(2).set_request(false);
    let build = || Fdc::new(line(), dma.channel(2), [Some(Drive::new(floppy())), None]);
    torment(build, &[], |random, bench| {
        // What a driver does, with any parameters.
        bench.out8(0x3f2, 0x1c | random.u8(0..4));
        bench.out8(0x3f7, 2);
        let code = [0x03, 0x45, 0xc6, 0x4d, 0x16, 0x02, 0x11, 0x0f, 0x13, 0x0c][random.usize(0..10)];
        bench.out8(0x3f5, code);
        (0..9).for_each(|_| bench.out8(0x3f5, random.u8(0..12)));
        bench.advance(random.u64(0..20_000_000));
        for _ in 0..random.u32(0..600) {
            bench.in8(0x3f5);
        }
    });
}

#[test]
fn hostile_guest_cannot_break_a_whole_pc() {
    for seed in 0..4 {
        println!("pc seed {seed}");
        let mut random = Rng::with_seed(seed);
        let far: [MemoryBackend; 4] = Default::default();
        let back_end = |i: usize| Some(Box::new(far[i].clone()) as Box<dyn CharBackend>);
        let model = if seed % 2 == 0 { "max" } else { "486" };
        let config = PcConfig {
            ram: 4 << 20,
            model: Arc::new(CpuModel::parse(model).expect("a model")),
            clock: ClockMode::Icount { shift: 0 },
            date: StartTime::default(),
            serials: std::array::from_fn(back_end),
            parallel: Some(Box::new(MemoryBackend::new())),
            debugcon: Some((debugcon::PORT, Box::new(MemoryBackend::new()))),
            debug_exit: Some(DebugExit::DEFAULT),
            testdev: true,
            audio: sound(),
            vga: Some(VgaConfig::default()),
            ide: Default::default(),
            floppies: [Some(floppy()), None],
            expansion: Default::default(),
            boot: PcBoot::ResetVector,
            firmware: Default::default(),
            options: MachineOptions::default(),
        };
        let mut pc = Pc::new(config).expect("a PC");
        pc.machine.reset(ResetKind::Cold).expect("a reset");
        let bus = pc.machine.bus().clone();
        post::initialise(&bus, [true; 4], true);
        let mut regions: Vec<_> = [
            0x00, 0x20, 0x40, 0x60, 0x70, 0x80, 0xa0, 0xc0, 0xe0, 0x220, 0x2e8, 0x330, 0x3f0, 0x3f8, 0x4d0, 0x600,
            0x700, 0xcf8,
        ]
        .map(|base| (Space::Port, ports(base, 16)))
        .to_vec();
        regions.push((Space::Port, ports(0, 0xfffb)));
        regions
            .extend([0xfec0_0000, 0xfed0_0000, 0xfee0_0000].map(|base| (Space::Memory, Region { base, len: 0x1000 })));
        for _ in 0..30_000 {
            let (space, address, size) = access(&mut random, &regions);
            let value = value(&mut random);
            match (random.u8(0..8), space) {
                (0..4, Space::Port) => bus.port_write(address as u16, size, value as u32, 0),
                (0..4, Space::Memory) => bus.memory_write(address, size, value, 0),
                (4..6, Space::Port) => drop(bus.port_read(address as u16, size, 0)),
                (4..6, Space::Memory) => drop(bus.memory_read(address, size, 0)),
                (6, _) => {
                    let deadline = bus.poll();
                    let end = deadline.unwrap_or(Instant::ZERO).max(bus.now_after(0).plus_nanos(wait(&mut random)));
                    bus.clock(|clock| clock.skip_to(end));
                }
                _ => {
                    bus.acknowledge_interrupt();
                    pc.input.send(InputEvent::Key { key: Key::A, pressed: random.bool() });
                }
            }
            bus.take_outcomes();
        }
    }
}
