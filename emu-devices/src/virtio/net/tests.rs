use super::*;
use crate::net::MemoryNetwork;
use crate::virtio::driver::{Driver, WAYS, Way};
use crate::virtio::feature::RING_EVENT_IDX;
use crate::virtio::pci::VirtioOptions;

const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const CONTROL: usize = 2;

fn driver_with(way: Way, features: u64) -> (Driver<Net>, MemoryNetwork) {
    let far = MemoryNetwork::new();
    let net = Net::new(MacAddress(MAC), Box::new(far.clone()), NetOptions::default());
    let mut driver = Driver::new(net, way, VirtioOptions::default());
    driver.start(features);
    (driver, far)
}

fn frame(to: [u8; 6], len: usize) -> Vec<u8> {
    let mut frame = [&to[..], &MAC, &[8, 0]].concat();
    frame.extend((0..len - 14).map(|i| i as u8));
    frame
}

fn header(driver: &Driver<Net>) -> usize {
    if driver.features & (feature::MRG_RXBUF | crate::virtio::feature::VERSION_1) != 0 { 12 } else { 10 }
}

#[test]
fn frames_are_sent_and_received_in_all_ways() {
    for way in WAYS {
        for features in [0, !RING_EVENT_IDX, u64::MAX] {
            let (mut driver, far) = driver_with(way, features);
            let head = vec![0; header(&driver)];
            assert_eq!(driver.config(0, 4), 0x1200_5452);
            assert_eq!(driver.config(6, 2), u64::from(net_status::LINK_UP));
            driver.request(TRANSMIT, &[&head, &frame([1; 6], 60), b"more"], &[]);
            assert_eq!(driver.interrupts(), driver.interrupt_of(TRANSMIT));
            assert_eq!(far.take_sent(), [[&frame([1; 6], 60)[..], b"more"].concat()]);
            let heads: Vec<u16> = (0..3).map(|_| driver.add(RECEIVE, &[], &[header(&driver), 1514])).collect();
            driver.kick(RECEIVE);
            far.deliver(&frame(MAC, 1000));
            far.deliver(&frame(MAC, 14));
            driver.bench.poll();
            assert_eq!(driver.interrupts(), driver.interrupt_of(RECEIVE), "one for both");
            let used = driver.used(RECEIVE);
            assert_eq!(used.iter().map(|u| u.0).collect::<Vec<_>>(), heads[..2]);
            let got = driver.room(RECEIVE, heads[0])[..used[0].1 as usize].to_vec();
            assert_eq!(got[header(&driver)..], frame(MAC, 1000));
            assert_eq!(got[10..header(&driver)], [1, 0][..header(&driver) - 10]);
        }
    }
}

#[test]
fn frames_wait_until_the_guest_has_room() {
    let (mut driver, far) = driver_with(WAYS[0], u64::MAX);
    far.deliver(&frame(MAC, 100));
    driver.bench.poll();
    assert_eq!(far.waiting(), 1);
    let head = driver.add(RECEIVE, &[], &[200]);
    driver.kick(RECEIVE);
    assert_eq!(driver.used(RECEIVE), [(head, 112)]);
}

#[test]
fn long_frame_takes_several_buffers_or_none() {
    let (mut driver, far) = driver_with(WAYS[0], u64::MAX);
    let first = driver.add(RECEIVE, &[], &[100]);
    driver.add(RECEIVE, &[], &[100]);
    far.deliver(&frame(MAC, 250));
    driver.bench.poll();
    assert!(driver.used(RECEIVE).is_empty());
    driver.add(RECEIVE, &[], &[100]);
    driver.kick(RECEIVE);
    let used = driver.used(RECEIVE);
    assert_eq!(used.iter().map(|(_, len)| *len).collect::<Vec<_>>(), [100, 100, 62]);
    let got: Vec<u8> =
        used.iter().flat_map(|(head, len)| driver.room(RECEIVE, *head)[..*len as usize].to_vec()).collect();
    assert_eq!((got[10], &got[12..]), (3, &frame(MAC, 250)[..]));
    assert_eq!(used[0].0, first);
    // Without mergeable buffers it is lost, and the next one comes.
    let (mut driver, far) = driver_with(WAYS[0], 0);
    let head = driver.add(RECEIVE, &[], &[100]);
    far.deliver(&frame(MAC, 250));
    far.deliver(&frame(MAC, 50));
    driver.bench.poll();
    assert_eq!(driver.used(RECEIVE), [(head, 62)]);
}

#[test]
fn checksums_and_long_packets_are_the_devices_work() {
    let (mut driver, far) = driver_with(WAYS[0], u64::MAX);
    let mut head = [NEEDS_CSUM, 0, 0, 0, 0, 0, 14, 0, 2, 0, 0, 0];
    driver.request(TRANSMIT, &[&head, &frame([1; 6], 14), &[0x12, 0x34, 0, 0, 0x56, 0]], &[]);
    assert_eq!(far.take_sent()[0][14..], [0x12, 0x34, 0x97, 0xcb, 0x56, 0]);
    // Beyond the frame, and a packet that is not TCP: both are lost, and the driver gets its buffers back.
    head[6] = 200;
    driver.request(TRANSMIT, &[&head, &frame([1; 6], 14)], &[]);
    let gso = [NEEDS_CSUM, GSO_TCPV4, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0];
    driver.request(TRANSMIT, &[&gso, &frame([1; 6], 500)], &[]);
    assert!(far.take_sent().is_empty());
    let mut tcp = frame([1; 6], 14);
    tcp.extend([0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2]);
    tcp.extend([0x30, 0x39, 0, 80, 0, 0, 0, 0, 0, 0, 0, 1, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
    tcp.extend(vec![7; 5000]);
    driver.request(TRANSMIT, &[&gso, &tcp], &[]);
    assert_eq!(far.take_sent().iter().map(Vec::len).collect::<Vec<_>>(), [1514, 1514, 1514, 674]);
    far.take_long_packets(true);
    driver.request(TRANSMIT, &[&gso, &tcp], &[]);
    assert_eq!(far.take_sent().iter().map(Vec::len).collect::<Vec<_>>(), [5054]);
    let head = driver.add(RECEIVE, &[], &[100]);
    far.deliver(&frame(MAC, 60));
    driver.bench.poll();
    assert_eq!(driver.room(RECEIVE, head)[0], DATA_VALID);
}

#[test]
fn filter_does_as_the_driver_says() {
    let (mut driver, far) = driver_with(WAYS[0], u64::MAX);
    let command = |driver: &mut Driver<Net>, bytes: &[u8]| driver.request(CONTROL, &[bytes], &[1]) == [0];
    let received = |driver: &mut Driver<Net>, to: [u8; 6], vlan: Option<u8>| {
        let mut sent = frame(to, 100);
        if let Some(vlan) = vlan {
            sent.splice(12..12, [0x81, 0, 0, vlan]);
        }
        far.deliver(&sent);
        driver.add(RECEIVE, &[], &[200]);
        driver.bench.poll();
        !driver.used(RECEIVE).is_empty()
    };
    let (group, other) = ([1, 0, 0x5e, 0, 0, 1], [2, 3, 4, 5, 6, 7]);
    let all = |driver: &mut Driver<Net>| [MAC, other, group, BROADCAST].map(|to| received(driver, to, None));
    assert_eq!(all(&mut driver), [true; 4], "until the driver says otherwise");
    assert!(command(&mut driver, &[0, 0, 0]));
    assert_eq!(all(&mut driver), [true, false, false, true]);
    assert!(command(&mut driver, &[&[1, 0, 1, 0, 0, 0][..], &other, &[1, 0, 0, 0], &group].concat()));
    assert_eq!(all(&mut driver), [true; 4]);
    assert!(command(&mut driver, &[0, 3, 1]) && command(&mut driver, &[0, 5, 1]));
    assert_eq!(all(&mut driver), [true, true, false, false]);
    assert!(command(&mut driver, &[&[1, 1][..], &group].concat()));
    assert_eq!(driver.config(0, 4), 0x005e_0001);
    assert!(!received(&mut driver, MAC, None));
    assert!(!received(&mut driver, other, Some(5)));
    assert!(command(&mut driver, &[2, 0, 5, 0]));
    assert!(received(&mut driver, other, Some(5)) && !received(&mut driver, other, Some(6)));
    assert!(command(&mut driver, &[2, 1, 5, 0]) && command(&mut driver, &[3, 0]));
    for wrong in
        [&[][..], &[0], &[0, 9, 1], &[0, 0], &[1, 0, 9, 0, 0, 0], &[1, 1, 1], &[2, 0, 0, 0x10], &[2, 0, 1], &[9, 9]]
    {
        let wrong = if wrong.is_empty() { &[0xff, 0xff][..] } else { wrong };
        assert!(!command(&mut driver, wrong), "{wrong:?}");
    }
    // Too many addresses: everything of that kind passes.
    let many: Vec<u8> = (0..65u8).flat_map(|i| [2, 9, 9, 9, 9, i]).collect();
    assert!(command(&mut driver, &[&[1, 0, 65, 0, 0, 0][..], &many, &[0; 4]].concat()));
    assert!(received(&mut driver, [2, 0, 0, 0, 0, 1], None));
}

#[test]
fn link_is_seen_and_restored_machines_announce_themselves() {
    for way in WAYS {
        let (mut driver, far) = driver_with(way, u64::MAX);
        far.set_link(false);
        driver.bench.poll();
        assert_eq!((driver.config(6, 2), driver.interrupts()), (0, driver.interrupt_of_config()));
        far.set_link(true);
        driver.bench.poll();
        driver.interrupts();
        let net = Net::new(MacAddress(MAC), Box::new(far.clone()), NetOptions::default());
        let mut other = Driver::in_world(net, way, VirtioOptions::default(), &driver.bench.world.clone());
        driver.bench.copy_state_to(&mut other.bench);
        other.rings = std::mem::take(&mut driver.rings);
        other.bench.poll();
        assert_eq!((other.config(6, 2), other.interrupts()), (3, other.interrupt_of_config()));
        assert_eq!(other.request(CONTROL, &[&[3, 0]], &[1]), [0]);
        assert_eq!(other.config(6, 2), 1);
    }
}

#[test]
fn frames_without_header_or_too_long_are_lost() {
    let (mut driver, far) = driver_with(WAYS[0], u64::MAX);
    driver.request(TRANSMIT, &[&[0; 11]], &[]);
    driver.request(TRANSMIT, &[&[0; 12]], &[]);
    driver.request(TRANSMIT, &[&[0; 12], &vec![0; LONGEST_FRAME + 1]], &[]);
    assert!(far.take_sent().is_empty());
}
