//! Conversations with the 8237A pair.

use super::*;
use crate::testbench::Bench;

const READ: u8 = 0x48;
const WRITE: u8 = 0x44;
const AUTOINITIALISE: u8 = 0x10;
const DECREMENT: u8 = 0x20;

/// Programs channel 2 as a floppy driver does: mode, address, count.
fn program_2(bench: &mut Bench<Dma>, mode: u8, address: u32, count: u16) {
    bench.out8(0x0a, 0x06);
    bench.out8(0x0c, 0);
    bench.out8(0x0b, mode | 2);
    bench.out8(0x04, address as u8);
    bench.out8(0x04, (address >> 8) as u8);
    bench.out8(0x81, (address >> 16) as u8);
    bench.out8(0x05, count as u8);
    bench.out8(0x05, (count >> 8) as u8);
    bench.out8(0x0a, 0x02);
}

fn bytes(bench: &Bench<Dma>, address: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    bench.world.memory().read(address, &mut bytes);
    bytes
}

#[test]
fn dma_write_fills_memory_and_stops_at_terminal_count() {
    let mut b = Bench::new(Dma::default());
    let channel = b.device.channel(2);
    program_2(&mut b, WRITE, 0x1_2345, 7);
    assert_eq!(channel.ready(), Some(TransferKind::Write));
    let memory = b.world.memory().clone();
    assert_eq!(channel.write_memory(&memory, &[1, 2, 3]), Transferred { bytes: 3, terminal_count: false });
    b.out8(0x0c, 0);
    assert_eq!((b.in8(0x04), b.in8(0x04), b.in8(0x05), b.in8(0x05)), (0x48, 0x23, 4, 0));
    assert_eq!(channel.write_memory(&memory, &[4; 20]), Transferred { bytes: 5, terminal_count: true });
    assert_eq!(bytes(&b, 0x1_2345, 9), [1, 2, 3, 4, 4, 4, 4, 4, 0]);
    assert_eq!((b.in8(0x08), b.in8(0x08)), (0x04, 0), "reading clears terminal counts");
    assert_eq!(channel.ready(), None, "masked");
    assert_eq!(b.in8(0x0f) & 0x0f, 0x0f);
    assert_eq!(channel.write_memory(&memory, &[9]), Transferred::default());
}

#[test]
fn dma_read_wraps_within_its_page() {
    let mut b = Bench::new(Dma::default());
    let memory = b.world.memory().clone();
    memory.write(0x1_fffe, &[1, 2]);
    memory.write(0x1_0000, &[3, 4]);
    program_2(&mut b, READ, 0x1_fffe, 3);
    let mut buffer = [0; 4];
    assert!(b.device.channel(2).read_memory(&memory, &mut buffer).terminal_count);
    assert_eq!(buffer, [1, 2, 3, 4]);
}

#[test]
fn dma_autoinitialise_starts_over_unmasked() {
    let mut b = Bench::new(Dma::default());
    let memory = b.world.memory().clone();
    program_2(&mut b, WRITE | AUTOINITIALISE, 0x2000, 1);
    let channel = b.device.channel(2);
    for value in 0..3 {
        assert_eq!(channel.write_memory(&memory, &[value; 2]), Transferred { bytes: 2, terminal_count: true });
    }
    assert_eq!(bytes(&b, 0x2000, 2), [2, 2]);
    assert_eq!(b.in8(0x08), 0x04);
}

#[test]
fn dma_decrement_fills_downwards() {
    let mut b = Bench::new(Dma::default());
    let memory = b.world.memory().clone();
    program_2(&mut b, WRITE | DECREMENT, 0x3002, 2);
    b.device.channel(2).write_memory(&memory, &[1, 2, 3]);
    assert_eq!(bytes(&b, 0x3000, 3), [3, 2, 1]);
}

#[test]
fn dma_word_channel_counts_words_and_drops_page_bit_0() {
    let mut b = Bench::new(Dma::default());
    let memory = b.world.memory().clone();
    b.out8(0xd8, 0);
    b.out8(0xd6, WRITE | 1);
    b.out8(0xc4, 0x00);
    b.out8(0xc4, 0x90);
    b.out8(0xc6, 0x01);
    b.out8(0xc6, 0x00);
    b.out8(0x8b, 0x13);
    b.out8(0xd4, 0x01);
    let channel = b.device.channel(5);
    assert_eq!(channel.write_memory(&memory, &[1, 2, 3]), Transferred { bytes: 2, terminal_count: false });
    assert_eq!(channel.write_memory(&memory, &[4, 5, 6]), Transferred { bytes: 2, terminal_count: true });
    assert_eq!(bytes(&b, 0x13_2000, 4), [1, 2, 4, 5]);
    assert_eq!(b.in8(0xd0), 0x02);
}

#[test]
fn dma_mode_must_match_the_direction() {
    let mut b = Bench::new(Dma::default());
    let memory = b.world.memory().clone();
    let channel = b.device.channel(2);
    program_2(&mut b, READ, 0x1000, 9);
    assert_eq!(channel.write_memory(&memory, &[1]), Transferred::default());
    program_2(&mut b, 0xc0, 0x1000, 9);
    assert_eq!(channel.ready(), Some(TransferKind::None));
    program_2(&mut b, 0x40, 0x1000, 0);
    assert_eq!(channel.write_memory(&memory, &[1]), Transferred { bytes: 1, terminal_count: true });
    assert_eq!(bytes(&b, 0x1000, 1), [0], "verify moves nothing");
}

#[test]
fn dma_disabled_controller_is_not_ready() {
    let mut b = Bench::new(Dma::default());
    program_2(&mut b, WRITE, 0, 9);
    b.out8(0x08, 0x04);
    assert_eq!(b.device.channel(2).ready(), None);
}

#[test]
fn dma_status_shows_requests() {
    let mut b = Bench::new(Dma::default());
    b.device.channel(3).set_request(true);
    b.out8(0x09, 0x05);
    assert_eq!(b.in8(0x08), 0xa0);
    b.device.channel(3).set_request(false);
    b.out8(0x09, 0x01);
    assert_eq!(b.in8(0x08), 0x00);
}

#[test]
fn dma_master_clear_masks_all_and_resets_the_flip_flop() {
    let mut b = Bench::new(Dma::default());
    b.out8(0x0e, 0);
    b.out8(0x00, 0x34);
    b.out8(0x0d, 0);
    assert_eq!(b.in8(0x0f) & 0x0f, 0x0f);
    b.out8(0x00, 0x78);
    b.out8(0x00, 0x56);
    assert_eq!((b.in8(0x00), b.in8(0x00)), (0x78, 0x56));
}

#[test]
fn dma_page_registers_read_back_all_sixteen() {
    let mut b = Bench::new(Dma::default());
    for port in 0x80..0x90 {
        b.out8(port, port as u8 ^ 0x5a);
    }
    assert!((0x80..0x90).all(|port| b.in8(port) == port as u8 ^ 0x5a));
}

#[test]
fn dma_restored_state_serves_channels_handed_out_before() {
    let mut b = Bench::new(Dma::default());
    program_2(&mut b, WRITE, 0x1000, 9);
    let mut other = Bench::new(Dma::default());
    let channel = other.device.channel(2);
    b.copy_state_to(&mut other);
    assert_eq!(channel.ready(), Some(TransferKind::Write));
}
