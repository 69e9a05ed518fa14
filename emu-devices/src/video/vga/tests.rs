use super::*;
use crate::testbench::{Bench, World};
use fastrand::Rng;

const MEMORY: u32 = 1 << 20;

/// A card in its own world, after a reset, with the window mapped.
fn bench() -> Bench<Vga> {
    bench_with(&VgaConfig { memory: MEMORY, ..VgaConfig::default() })
}

fn bench_with(config: &VgaConfig) -> Bench<Vga> {
    let world = World::with_extra(1 << 20, extra_memory(config));
    let card = Vga::new(config, world.memory().clone(), Arc::new(CpuPins::default()));
    let mut bench = Bench::in_world(card, &world);
    bench.map(Space::Memory, WINDOW, WINDOW_TAG);
    // Colour ports, memory enabled.
    bench.out8(0x3c2, 0x03);
    bench
}

fn indexed(bench: &mut Bench<Vga>, port: u16, index: u8, value: u8) {
    bench.out16(port, u16::from_le_bytes([index, value]));
}

fn vbe(bench: &mut Bench<Vga>, index: u16, value: u16) {
    bench.out16(0x1ce, index);
    bench.out16(0x1cf, value);
}

fn vbe_read(bench: &mut Bench<Vga>, index: u16) -> u16 {
    bench.out16(0x1ce, index);
    bench.in16(0x1cf)
}

/// The straightforward model: four planes as arrays, one bit at a time, after the register descriptions.
struct Reference {
    planes: Vec<[u8; 4]>,
    latches: [u8; 4],
    gr: [u8; 9],
    map_mask: u8,
    memory_mode: u8,
}

impl Reference {
    fn place(&self, address: usize) -> (usize, u8, u8) {
        let chain = self.memory_mode & 8 != 0;
        if chain {
            return (address / 4, 1 << (address % 4), (address % 4) as u8);
        }
        let odd = address % 2 == 1;
        let write = match (self.memory_mode & 4 != 0, odd) {
            (true, _) => 0xf,
            (false, true) => 0b1010,
            (false, false) => 0b0101,
        };
        let read = if self.gr[5] & 0x10 != 0 { self.gr[4] & 2 | u8::from(odd) } else { self.gr[4] & 3 };
        (if self.gr[6] & 2 != 0 { address & !1 } else { address }, write, read)
    }

    fn read(&mut self, address: usize) -> u8 {
        let (at, _, plane) = self.place(address);
        self.latches = self.planes[at];
        if self.gr[5] & 8 == 0 {
            return self.latches[usize::from(plane)];
        }
        (0..8)
            .filter(|bit| {
                (0..4).all(|plane| {
                    self.gr[7] >> plane & 1 == 0 || self.latches[plane] >> bit & 1 == self.gr[2] >> plane & 1
                })
            })
            .fold(0, |value, bit| value | 1 << bit)
    }

    fn write(&mut self, address: usize, value: u8) {
        let (at, reach, _) = self.place(address);
        for plane in (0..4).filter(|plane| self.map_mask & reach & 1 << plane != 0) {
            let set = self.gr[0] >> plane & 1;
            let rotate = self.gr[3] & 7;
            for bit in 0..8u8 {
                let latch = self.latches[plane] >> bit & 1;
                let rotated = value >> ((bit + rotate) % 8) & 1;
                let mask = self.gr[8] >> bit & 1;
                let mode = self.gr[5] & 3;
                let data = match mode {
                    0 if self.gr[1] >> plane & 1 != 0 => set,
                    0 => rotated,
                    1 => latch,
                    2 => value >> plane & 1,
                    _ => set,
                };
                let operated = match self.gr[3] >> 3 & 3 {
                    _ if mode == 1 => latch,
                    0 => data,
                    1 => data & latch,
                    2 => data | latch,
                    _ => data ^ latch,
                };
                let mask = if mode == 3 { mask & rotated } else { mask };
                let result = if mask != 0 { operated } else { latch };
                let byte = &mut self.planes[at][plane];
                *byte = *byte & !(1 << bit) | result << bit;
            }
        }
    }
}

#[test]
fn window_agrees_with_a_bit_by_bit_model_in_all_modes() {
    let mut random = Rng::with_seed(3);
    let mut bench = bench();
    let mut model =
        Reference { planes: vec![[0; 4]; 0x1_0000], latches: [0; 4], gr: [0; 9], map_mask: 0, memory_mode: 0 };
    for step in 0..40_000 {
        let value = random.u8(..);
        match random.u8(0..8) {
            0 => {
                let index = random.u8(0..9);
                // 64 KiB at A0000h, whatever else register 6 says.
                let value = if index == 6 { value & 0x03 | 0x04 } else { value };
                indexed(&mut bench, 0x3ce, index, value);
                model.gr[usize::from(index)] = value;
            }
            1 => {
                indexed(&mut bench, 0x3c4, 2, value & 0x0f);
                model.map_mask = value & 0x0f;
            }
            2 if step % 16 == 0 => {
                indexed(&mut bench, 0x3c4, 4, value & 0x0e);
                model.memory_mode = value & 0x0e;
            }
            3..6 => {
                let (address, size) = (random.usize(0..64), 1 << random.u8(0..4));
                let value = random.u64(..);
                bench.write(Space::Memory, 0xa_0000 + address as u64, size, value);
                for i in 0..usize::from(size) {
                    if model.gr[6] & 0x0c != 0 {
                        model.write(address + i, (value >> (8 * i)) as u8);
                    }
                }
            }
            _ if model.gr[6] & 0x0c == 0 => {}
            _ => {
                let (address, size) = (random.usize(0..64), 1 << random.u8(0..4));
                let expected =
                    (0..usize::from(size)).fold(0, |all, i| all | u64::from(model.read(address + i)) << (8 * i));
                let actual = bench.read(Space::Memory, 0xa_0000 + address as u64, size);
                assert_eq!(actual, expected, "step {step}, registers {:x?}", model.gr);
            }
        }
    }
}

#[test]
fn odd_even_text_memory_puts_characters_into_plane_0_and_attributes_into_plane_1() {
    let mut bench = bench();
    for (port, index, value) in [(0x3c4, 2, 3), (0x3c4, 4, 2), (0x3ce, 5, 0x10), (0x3ce, 6, 0x0e), (0x3ce, 8, 0xff)] {
        indexed(&mut bench, port, index, value);
    }
    bench.write(Space::Memory, 0xb_8006, 2, 0x1e41);
    assert_eq!(bench.read(Space::Memory, 0xb_8006, 2), 0x1e41);
    let mut bytes = [0; 8];
    bench.device.core.read(4 * 6, &mut bytes);
    assert_eq!(bytes, [0x41, 0x1e, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bench.read(Space::Memory, 0xa_0006, 2), 0xffff, "outside of the aperture");
    bench.out8(0x3c2, 0x01);
    assert_eq!(bench.read(Space::Memory, 0xb_8006, 2), 0xffff, "memory is disabled");
}

#[test]
fn attribute_flip_flop_tells_index_from_data() {
    let mut bench = bench();
    bench.in8(0x3da);
    for value in [0x31, 0x2a, 0x13, 0x05] {
        bench.out8(0x3c0, value);
    }
    assert_eq!((bench.in8(0x3c0), bench.in8(0x3c1)), (0x13, 0x05));
    bench.out8(0x3d4, 0x24);
    bench.out8(0x3c0, 0x31);
    assert_eq!(bench.in8(0x3d5), 0x80);
    bench.in8(0x3da);
    assert_eq!(bench.in8(0x3d5), 0);
    bench.out8(0x3c0, 0x31);
    assert_eq!(bench.in8(0x3c1), 0x2a);
}

#[test]
fn mono_and_colour_ports_exclude_each_other() {
    let mut bench = bench();
    indexed(&mut bench, 0x3d4, 0x0e, 0x12);
    assert_eq!((bench.in8(0x3d5), bench.in8(0x3b5), bench.in8(0x3ba)), (0x12, 0xff, 0xff));
    bench.out8(0x3c2, 0x02);
    assert_eq!((bench.in8(0x3d5), bench.in8(0x3b5), bench.in8(0x3cc)), (0xff, 0x12, 0x02));
}

#[test]
fn crtc_registers_0_to_7_are_protected_but_for_line_compare() {
    let mut bench = bench();
    indexed(&mut bench, 0x3d4, 0x00, 0x5f);
    indexed(&mut bench, 0x3d4, 0x11, 0x8e);
    indexed(&mut bench, 0x3d4, 0x00, 0x11);
    indexed(&mut bench, 0x3d4, 0x07, 0xff);
    assert_eq!(bench.in8(0x3d5), 0x10);
    bench.out8(0x3d4, 0);
    assert_eq!(bench.in8(0x3d5), 0x5f);
}

#[test]
fn dac_counts_components_and_colours_in_both_directions() {
    let mut bench = bench();
    bench.out8(0x3c8, 0xff);
    for value in [0x11, 0x7f, 0x33, 0x01, 0x02, 0x03, 0x3f] {
        bench.out8(0x3c9, value);
    }
    assert_eq!((bench.in8(0x3c7), bench.in8(0x3c8)), (0, 1));
    bench.out8(0x3c7, 0xff);
    assert_eq!(bench.in8(0x3c7), 3);
    let read: Vec<u8> = (0..6).map(|_| bench.in8(0x3c9)).collect();
    assert_eq!(read, [0x11, 0x3f, 0x33, 0x01, 0x02, 0x03]);
    bench.out8(0x3c7, 1);
    assert_eq!(bench.in8(0x3c9), 0, "an unfinished colour is not stored");
    // Eight bits, by the display interface.
    vbe(&mut bench, 4, 0x20);
    bench.out8(0x3c8, 7);
    (0..3).for_each(|_| bench.out8(0x3c9, 0xfe));
    bench.out8(0x3c7, 7);
    assert_eq!(bench.in8(0x3c9), 0xfe);
}

/// Mode 3's timing: 449 lines of 900 dots at 28.322 MHz, retrace from line 412 on.
fn text_timing(bench: &mut Bench<Vga>) -> u64 {
    bench.out8(0x3c2, 0x67);
    let crtc: [(u8, u8); 7] = [(0, 0x5f), (1, 0x4f), (6, 0xbf), (7, 0x1f), (0x10, 0x9c), (0x11, 0x0e), (0x12, 0x8f)];
    for (index, value) in crtc {
        indexed(bench, 0x3d4, index, value);
    }
    900 * 449
}

#[test]
fn retrace_and_display_enable_follow_virtual_time() {
    let mut bench = bench();
    let frame = text_timing(&mut bench);
    let mut status = |dot: u64| {
        bench.world.set_now(Instant::from_ticks(10 * frame + dot, 28_322_000));
        bench.in8(0x3da) & 9
    };
    assert_eq!(status(0), 0);
    assert_eq!((status(719), status(720), status(899), status(900)), (0, 1, 1, 0));
    assert_eq!((status(399 * 900), status(400 * 900)), (0, 1));
    assert_eq!((status(412 * 900 - 1), status(412 * 900)), (1, 9));
    assert_eq!((status(414 * 900 - 1), status(414 * 900)), (9, 1));
    assert_eq!(status(frame), 0);
}

#[test]
fn vertical_interrupt_is_pending_from_retrace_until_cleared() {
    let mut bench = bench();
    let frame = text_timing(&mut bench);
    let nanos = frame * 1_000_000_000 / 28_322_000;
    assert_eq!(bench.in8(0x3c2), 0x10);
    indexed(&mut bench, 0x3d4, 0x11, 0x1e);
    bench.advance(nanos / 2);
    assert_eq!(bench.in8(0x3c2), 0x10);
    bench.advance(nanos / 2);
    assert_eq!(bench.in8(0x3c2), 0x90);
    indexed(&mut bench, 0x3d4, 0x11, 0x0e);
    assert_eq!(bench.in8(0x3c2), 0x10);
    indexed(&mut bench, 0x3d4, 0x11, 0x1e);
    assert_eq!(bench.in8(0x3c2), 0x10);
    bench.advance(nanos);
    assert_eq!(bench.in8(0x3c2), 0x90);
}

#[test]
fn dispi_conversation_sets_modes_within_memory() {
    let mut bench = bench();
    assert_eq!((vbe_read(&mut bench, 0), vbe_read(&mut bench, 10)), (0xb0c5, 16));
    vbe(&mut bench, 0, 0xb0c2);
    vbe(&mut bench, 0, 0x1234);
    assert_eq!(vbe_read(&mut bench, 0), 0xb0c2);
    vbe(&mut bench, 4, 2);
    assert_eq!([1, 2, 3].map(|i| vbe_read(&mut bench, i)), [2560, 1600, 32]);
    // 640x480 in 16 bits, wider than shown.
    for (index, value) in [(4, 0), (1, 640), (2, 480), (3, 16), (4, 0x41), (6, 800), (8, 500), (9, 700)] {
        vbe(&mut bench, index, value);
    }
    assert_eq!([1, 2, 3, 6, 7, 8, 9].map(|i| vbe_read(&mut bench, i)), [640, 480, 16, 800, 655, 160, 175]);
    assert_eq!(bench.in16(0x1d0), 175, "the third port is the data register too");
    // More than there is: the height gives way.
    for (index, value) in [(4, 0), (1, 0xffff), (2, 0xffff), (3, 32), (4, 0x41)] {
        vbe(&mut bench, index, value);
    }
    assert_eq!([1, 2, 6].map(|i| vbe_read(&mut bench, i)), [2560, 102, 2560]);
    vbe(&mut bench, 3, 7);
    assert_eq!(vbe_read(&mut bench, 3), 8);
}

#[test]
fn dispi_banks_show_linear_memory_and_enabling_clears_unless_told() {
    let mut bench = bench();
    for (index, value) in [(1, 640), (2, 480), (3, 8), (4, 1), (5, 2)] {
        vbe(&mut bench, index, value);
    }
    bench.write(Space::Memory, 0xa_0010, 4, 0x1234_5678);
    let mut bytes = [0; 4];
    bench.device.core.read(0x2_0010, &mut bytes);
    assert_eq!(bytes, [0x78, 0x56, 0x34, 0x12]);
    assert_eq!(bench.read(Space::Memory, 0xb_0000, 1), 0xff);
    vbe(&mut bench, 4, 0);
    vbe(&mut bench, 4, 0x81);
    assert_eq!(vbe_read(&mut bench, 5), 0);
    bench.device.core.read(0x2_0010, &mut bytes);
    assert_eq!(bytes[0], 0x78);
    vbe(&mut bench, 4, 0);
    vbe(&mut bench, 4, 1);
    bench.device.core.read(0x2_0010, &mut bytes);
    assert_eq!(bytes, [0; 4]);
}

#[test]
fn bars_move_memory_rom_and_registers() {
    let rom = [&[0x55, 0xaa][..], &[7; 6000]].concat();
    let mut bench = bench_with(&VgaConfig { memory: MEMORY, rom: Some(rom), font: vec![] });
    let config = bench.device.config();
    assert_eq!([0, 8].map(|register| config.lock().read(register, 4)), [0x1111_1234, 0x0300_0002]);
    // Bochs' BIOS reads the ROM while the command register is 0.
    config.lock().write(0x30, 4, 0xfebe_0001);
    bench.poll();
    let mut bytes = [0; 2];
    bench.world.memory().read(0xfebe_0000, &mut bytes);
    assert_eq!((config.lock().read(4, 2), bytes), (0, [0x55, 0xaa]));
    for (register, size) in [(0x10, 0xfff0_0008), (0x18, 0xffff_f000), (0x30, 0xffff_e001)] {
        config.lock().write(register, 4, u32::MAX);
        assert_eq!(config.lock().read(register, 4), size);
    }
    for (register, base) in [(0x10, 0xfd00_0000), (0x18, 0xfebf_0000), (0x30, 0xfebe_0001), (4, 3)] {
        config.lock().write(register, 4, base);
    }
    bench.poll();
    let region = Region { base: 0xfebf_0000, len: 0x1000 };
    assert!(bench.take_requests().contains(&Request::Map { space: Space::Memory, region, tag: REGISTER_TAG }));
    assert_ne!(bench.device.pins.take(CpuPins::FLUSH), 0);
    let memory = bench.world.memory().clone();
    memory.write(0xfd00_0004, &[9]);
    let mut bytes = [0; 5];
    bench.device.core.read(0, &mut bytes);
    assert_eq!(bytes, [0, 0, 0, 0, 9]);
    memory.write(0xfebe_0001, &[1]);
    memory.read(0xfebe_0000, &mut bytes);
    assert_eq!(bytes, [0x55, 0xaa, 7, 7, 7]);
    bench.map(Space::Memory, region, REGISTER_TAG);
    assert_eq!(bench.read(Space::Memory, 0xfebf_0000, 8), 0x00ff_ffff_ffff_ff00);
    bench.write(Space::Memory, 0xfebf_0502, 2, 1024);
    assert_eq!((vbe_read(&mut bench, 1), bench.read(Space::Memory, 0xfebf_0502, 2)), (1024, 1024));
    bench.write(Space::Memory, 0xfebf_0404, 2, 0x0f02);
    assert_eq!(bench.in16(0x3c4), 0x0f02);
    bench.reset(ResetKind::Warm);
    memory.read(0xfd00_0000, &mut bytes);
    assert_eq!(bytes, [0xff; 5]);
}

#[test]
fn snapshot_restores_registers() {
    let mut bench = bench();
    text_timing(&mut bench);
    vbe(&mut bench, 1, 800);
    let mut other = self::bench();
    bench.copy_state_to(&mut other);
    assert_eq!(other.device.state(), bench.device.state());
}
