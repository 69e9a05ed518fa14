use super::*;

const ISS: Seq = Seq(0xffff_ff00);
const IRS: Seq = Seq(0xffff_fff0);

/// A guest's segment with ACK.
fn segment(seq: Seq, ack: Seq, data: &[u8]) -> Segment<'_> {
    Segment { seq, ack: Some(ack), syn: false, fin: false, rst: false, window: 1000, mss: None, scale: None, data }
}

/// An open connection that the guest has asked for, without scaled windows.
fn open(now: Instant) -> Endpoint {
    let syn = Segment { syn: true, ack: None, mss: Some(1000), ..segment(IRS, Seq(0), &[]) };
    let mut endpoint = Endpoint::asked(&syn, ISS, 1460);
    assert_eq!(endpoint.output(now), None);
    endpoint.agree();
    let output = endpoint.output(now).unwrap();
    assert_eq!((output.syn, output.seq, output.ack, output.scale), (true, ISS, Some(IRS.plus(1)), None));
    assert_eq!(endpoint.receive(&segment(IRS.plus(1), ISS.plus(1), &[]), now), None);
    assert_eq!(endpoint.phase(), Phase::Open);
    endpoint
}

fn them(offset: usize) -> Seq {
    IRS.plus(1 + offset)
}

fn us(offset: usize) -> Seq {
    ISS.plus(1 + offset)
}

#[test]
fn data_of_the_guest_is_taken_in_order_and_once() {
    let now = Instant::now();
    let mut endpoint = open(now);
    endpoint.receive(&segment(them(0), us(0), b"hello "), now);
    endpoint.receive(&segment(them(12), us(0), b"lost"), now);
    assert_eq!(endpoint.output(now).unwrap().ack, Some(them(6)));
    // Again by its beginning, with more behind it.
    endpoint.receive(&segment(them(3), us(0), b"lo world"), now);
    let fin = Segment { fin: true, ..segment(them(11), us(0), b"!") };
    endpoint.receive(&fin, now);
    assert_eq!(endpoint.received().iter().copied().collect::<Vec<u8>>(), b"hello world!");
    assert!(!endpoint.guest_is_finished());
    endpoint.received().clear();
    assert!(endpoint.guest_is_finished());
    while let Some(output) = endpoint.output(now) {
        assert_eq!(output.ack, Some(them(13)));
    }
}

#[test]
fn window_closes_when_the_host_takes_nothing_and_opens_again() {
    let now = Instant::now();
    let mut endpoint = open(now);
    let chunk = vec![7; 1000];
    let mut sent = 0;
    loop {
        endpoint.receive(&segment(them(sent), us(0), &chunk), now);
        let output = endpoint.output(now).unwrap();
        let taken = output.ack.unwrap().since(them(0));
        if taken == sent && output.window == 0 {
            break;
        }
        assert!(taken <= RECEIVE_BUFFER);
        sent = taken;
    }
    assert_eq!(endpoint.received().len(), RECEIVE_BUFFER);
    endpoint.received().drain(..500);
    assert_eq!(endpoint.output(now), None);
    endpoint.received().clear();
    assert_eq!(endpoint.output(now).unwrap().window, u16::MAX);
}

#[test]
fn data_for_the_guest_keeps_to_its_window_and_is_sent_again_when_lost() {
    let now = Instant::now();
    let mut endpoint = open(now);
    let data: Vec<u8> = (0..2500).map(|i| i as u8).collect();
    endpoint.push(&data);
    let first = endpoint.output(now).unwrap();
    assert_eq!((first.seq, first.data), (us(0), (0, 1000)));
    assert_eq!(endpoint.output(now), None);
    // Three acknowledgements of nothing new mean a loss.
    for _ in 0..3 {
        endpoint.receive(&segment(them(0), us(0), &[]), now);
    }
    assert_eq!(endpoint.output(now).unwrap().data, (0, 1000));
    endpoint.receive(&Segment { window: 2000, ..segment(them(0), us(1000), &[]) }, now);
    let second = endpoint.output(now).unwrap();
    assert_eq!(endpoint.data(second.data).0, &data[1000..2000]);
    let third = endpoint.output(now).unwrap();
    assert_eq!((endpoint.data(third.data).0, third.push), (&data[2000..], true));
    // Nothing comes back.
    let timer = endpoint.timer().unwrap();
    endpoint.time_out(timer, false);
    assert_eq!(endpoint.output(timer), None);
    let timer = endpoint.timer().unwrap();
    endpoint.time_out(timer, true);
    assert_eq!(endpoint.output(timer).unwrap().seq, us(1000));
    // The acknowledgement of all that was sent before counts.
    endpoint.receive(&segment(them(0), us(2500), &[]), timer);
    endpoint.finish();
    let fin = endpoint.output(timer).unwrap();
    assert_eq!((fin.fin, fin.seq), (true, us(2500)));
    endpoint.receive(&segment(them(0), us(2501), &[]), timer);
    endpoint.receive(&Segment { fin: true, ..segment(them(0), us(2501), &[]) }, timer);
    assert!(endpoint.is_done());
}

#[test]
fn closed_window_is_probed() {
    let now = Instant::now();
    let mut endpoint = open(now);
    endpoint.receive(&Segment { window: 0, ..segment(them(0), us(0), &[]) }, now);
    endpoint.push(b"waits");
    assert_eq!(endpoint.output(now), None);
    let timer = endpoint.timer().unwrap();
    endpoint.time_out(timer, true);
    assert_eq!(endpoint.output(timer).unwrap().data, (0, 1));
    assert_eq!(endpoint.output(timer), None);
}

#[test]
fn guest_that_does_not_answer_is_given_up() {
    let now = Instant::now();
    let mut endpoint = Endpoint::connect(ISS, 1460);
    let mut syns = 0;
    while endpoint.phase() != Phase::Gone {
        syns += usize::from(endpoint.output(now).is_some());
        let timer = endpoint.timer().unwrap();
        endpoint.time_out(timer, true);
    }
    assert_eq!(syns, 1 + RETRIES as usize);
}

#[test]
fn resets_count_only_where_they_must() {
    let now = Instant::now();
    let mut endpoint = open(now);
    endpoint.receive(&Segment { rst: true, ..segment(them(100), us(0), &[]) }, now);
    assert_eq!((endpoint.phase(), endpoint.output(now).unwrap().ack), (Phase::Open, Some(them(0))));
    endpoint.receive(&Segment { rst: true, ..segment(them(1_000_000), us(0), &[]) }, now);
    assert_eq!(endpoint.phase(), Phase::Open);
    endpoint.receive(&Segment { rst: true, ..segment(them(0), us(0), &[]) }, now);
    assert_eq!(endpoint.phase(), Phase::Gone);
}

#[test]
fn acknowledgement_of_what_was_never_sent_changes_nothing() {
    let now = Instant::now();
    let mut endpoint = open(now);
    endpoint.push(b"abc");
    endpoint.output(now).unwrap();
    endpoint.receive(&segment(them(0), us(4), b"x"), now);
    assert_eq!((endpoint.queues(), endpoint.output(now).unwrap().ack), ((0, 3), Some(them(0))));
}
