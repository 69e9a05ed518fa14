use super::*;
use crate::testbench::Bench;
use emu_core::device::Space;
use std::sync::Mutex;

#[derive(Default)]
struct Messages(Mutex<Vec<Message>>);

impl Messages {
    fn take(&self) -> Vec<Message> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl MsiSink for Messages {
    fn deliver(&self, address: u64, data: u32) {
        self.0.lock().unwrap().push((address, data));
    }
}

fn board() -> (Bench<IoApic>, Arc<IoApicCore>, Arc<Messages>) {
    let messages = Arc::new(Messages::default());
    let ioapic = IoApic::new(messages.clone());
    let core = ioapic.core();
    let mut bench = Bench::new(ioapic);
    bench.map(Space::Memory, REGION, 0);
    (bench, core, messages)
}

fn write(bench: &mut Bench<IoApic>, index: u8, value: u32) {
    bench.write(Space::Memory, REGION.base, 4, index.into());
    bench.write(Space::Memory, REGION.base + 0x10, 4, value.into());
}

fn read(bench: &mut Bench<IoApic>, index: u8) -> u32 {
    bench.write(Space::Memory, REGION.base, 4, index.into());
    bench.read(Space::Memory, REGION.base + 0x10, 4) as u32
}

#[test]
fn identity_and_reset_values_are_those_of_the_data_sheet() {
    let (mut bench, ..) = board();
    assert_eq!(read(&mut bench, 1), 0x0017_0020);
    assert_eq!(read(&mut bench, 0x10), 0x1_0000);
    assert_eq!(read(&mut bench, 0x3f), 0);
    assert_eq!(read(&mut bench, 0x40), 0);
    write(&mut bench, 0, 0xffff_ffff);
    assert_eq!(read(&mut bench, 0), 0x0f00_0000);
}

#[test]
fn edge_sends_one_message_for_each_rise() {
    let (mut bench, core, messages) = board();
    write(&mut bench, 0x15, 0x0300_0000);
    write(&mut bench, 0x14, 0x0831);
    core.set_level(2, true);
    core.set_level(2, false);
    core.set_level(2, true);
    assert_eq!(messages.take(), [(0xfee0_3004, 0x0031); 2]);
    core.end_of_interrupt(0x31);
    assert_eq!(messages.take(), []);
}

#[test]
fn masked_edge_is_lost() {
    let (mut bench, core, messages) = board();
    core.set_level(4, true);
    core.set_level(4, false);
    assert_eq!(messages.take(), []);
    write(&mut bench, 0x18, 0x0034);
    assert_eq!(messages.take(), []);
}

#[test]
fn level_is_held_by_remote_irr_and_sent_again_at_eoi_while_high() {
    let (mut bench, core, messages) = board();
    write(&mut bench, 0x10 + 20, 0x8045);
    core.set_level(10, true);
    assert_eq!(messages.take(), [(0xfee0_0000, 0xc045)]);
    assert_eq!(read(&mut bench, 0x10 + 20), 0xc045);
    write(&mut bench, 0x10 + 20, 0xffff_8045 & !0x1_0000);
    assert_eq!(messages.take(), []);
    core.end_of_interrupt(0x45);
    assert_eq!(messages.take(), [(0xfee0_0000, 0xc045)]);
    core.set_level(10, false);
    bench.write(Space::Memory, REGION.base + 0x40, 4, 0x45);
    assert_eq!(messages.take(), []);
    assert_eq!(read(&mut bench, 0x10 + 20), 0x8045);
}

#[test]
fn level_that_fell_while_masked_is_forgotten() {
    let (mut bench, core, messages) = board();
    write(&mut bench, 0x10 + 22, 0x1_8046);
    core.set_level(11, true);
    core.set_level(11, false);
    write(&mut bench, 0x10 + 22, 0x8046);
    assert_eq!(messages.take(), []);
}

#[test]
fn random_accesses_and_lines_never_panic() {
    let (mut bench, core, _messages) = board();
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    for _ in 0..50_000 {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        bench.write(Space::Memory, REGION.base + (seed >> 8) % 0xff8, 1 << (seed & 3), seed >> 20);
        write(&mut bench, (seed >> 16) as u8, (seed >> 24) as u32);
        read(&mut bench, (seed >> 32) as u8);
        core.set_level((seed >> 40) as u32 & 31, seed & 4 != 0);
    }
}
