//! Disks, their worker, and media that come and go.

use super::*;
use crate::scatter::Segment;
use crate::storage::image::MemoryImage;
use emu_core::mem::GuestMemory;

const ICOUNT: ClockMode = ClockMode::Icount { shift: 0 };

fn disk(image: &MemoryImage, clock: ClockMode) -> Disk {
    Disk::with_image("ide0-hd0", false, clock, "memory", Box::new(image.clone())).unwrap()
}

fn wait(disk: &mut Disk) -> Completion {
    loop {
        if let Some(completion) = disk.finished(Instant(u64::MAX)) {
            return completion;
        }
        std::thread::yield_now();
    }
}

fn read(disk: &mut Disk, offset: u64, len: usize) -> Completion {
    disk.submit(Instant::ZERO, Request::Read { offset, len });
    wait(disk)
}

fn write(disk: &mut Disk, offset: u64, data: Vec<u8>) -> Completion {
    disk.submit(Instant::ZERO, Request::Write { offset, data: Arc::new(data) });
    wait(disk)
}

#[test]
fn deterministic_disk_finishes_at_its_instant_however_slow_the_worker() {
    let image = MemoryImage::new(vec![5; 4096]);
    let mut disk = disk(&image, ICOUNT);
    image.hold(true);
    disk.submit(Instant(1000), Request::Read { offset: 0, len: 512 });
    let due = disk.poll_at().unwrap();
    assert_eq!(due, Instant(1000 + 100_000 + 5120));
    assert!(disk.finished(Instant(due.0 - 1)).is_none());
    let opener = image.clone();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        opener.hold(false);
    });
    let completion = disk.finished(due).expect("the machine waits");
    assert_eq!((completion.data, completion.done), (vec![5; 512], 512));
    assert_eq!(disk.poll_at(), None);
    thread.join().unwrap();
}

#[test]
fn real_time_disk_finishes_when_the_worker_has() {
    let image = MemoryImage::new(vec![5; 4096]);
    let mut disk = disk(&image, ClockMode::Realtime);
    image.hold(true);
    disk.submit(Instant::ZERO, Request::Flush);
    assert_eq!(disk.poll_at(), None);
    assert!(disk.is_busy() && disk.finished(Instant(u64::MAX)).is_none());
    image.hold(false);
    assert!(wait(&mut disk).error.is_none());
    assert_eq!(image.flushes(), 1);
}

#[test]
fn cancelled_write_is_still_written_and_before_the_next_request() {
    let image = MemoryImage::zeros(4096);
    let mut disk = disk(&image, ClockMode::Realtime);
    disk.submit(Instant::ZERO, Request::Write { offset: 512, data: Arc::new(vec![9; 512]) });
    disk.cancel();
    assert!(!disk.is_busy() && disk.finished(Instant(u64::MAX)).is_none());
    assert_eq!(read(&mut disk, 0, 1024).data, [vec![0; 512], vec![9; 512]].concat());
}

#[test]
fn error_in_the_middle_tells_how_far_the_request_went() {
    let image = MemoryImage::new(vec![1; 4096]);
    image.fail(1030..1031, io::ErrorKind::StorageFull);
    let mut disk = disk(&image, ICOUNT);
    let completion = read(&mut disk, 0, 2048);
    assert_eq!((completion.done, completion.data.len()), (1024, 1024));
    assert_eq!(completion.error.unwrap().kind(), io::ErrorKind::StorageFull);
    let completion = write(&mut disk, 512, vec![2; 2048]);
    assert_eq!((completion.done, completion.error.is_some()), (512, true));
    assert_eq!(image.bytes()[512..1025], [vec![2; 512], vec![1]].concat());
}

#[test]
fn partial_last_sector_reads_with_zeros_and_grows_when_written() {
    let image = MemoryImage::new(vec![3; 700]);
    let mut disk = disk(&image, ICOUNT);
    assert_eq!(disk.sectors(), 2);
    assert_eq!(read(&mut disk, 512, 512).data, [vec![3; 188], vec![0; 324]].concat());
    assert!(write(&mut disk, 512, vec![4; 512]).error.is_none());
    assert_eq!(image.bytes().len(), 1024);
    for beyond in [1024, u64::MAX - 5] {
        assert!(read(&mut disk, beyond, 512).error.is_some());
        assert!(write(&mut disk, beyond, vec![0; 512]).error.is_some());
    }
}

#[test]
fn read_only_image_refuses_writes() {
    let image = MemoryImage::zeros(512);
    image.set_read_only(true);
    let mut disk = disk(&image, ICOUNT);
    assert!(disk.is_read_only());
    assert!(write(&mut disk, 0, vec![1; 512]).error.is_some());
    assert_eq!(image.bytes(), vec![0; 512]);
}

#[test]
fn medium_is_changed_ejected_and_locked() {
    let mut disk = Disk::new("ide1-cd0", true, ICOUNT).unwrap();
    let media = disk.media();
    assert_eq!((disk.len(), disk.take_change()), (None, false));
    assert!(read(&mut disk, 0, 512).error.is_some());
    media.insert("a.iso", Box::new(MemoryImage::new(vec![1; 2048])), false).unwrap();
    assert_eq!((disk.len(), disk.take_change(), disk.take_change()), (Some(2048), true, false));
    assert_eq!(read(&mut disk, 0, 512).data, vec![1; 512]);
    disk.set_locked(true);
    let error = media.eject(false).unwrap_err();
    assert_eq!(error, MediaError::Locked("ide1-cd0".into()));
    assert!(disk.take_eject_request() && !disk.take_change());
    assert_eq!(media.info().file.as_deref(), Some("a.iso"));
    disk.set_locked(false);
    disk.set_tray(true);
    assert_eq!(disk.len(), None);
    disk.set_tray(false);
    assert_eq!(disk.len(), Some(2048));
    media.eject(false).unwrap();
    let info = media.info();
    assert_eq!((info.file, info.tray_open, info.locked), (None, true, false));
    assert!(disk.take_change());
}

#[test]
fn fixed_medium_cannot_be_ejected_and_settle_flushes_it() {
    let image = MemoryImage::zeros(512);
    let disk = disk(&image, ICOUNT);
    let media = disk.media();
    assert_eq!(media.eject(true), Err(MediaError::NotRemovable("ide0-hd0".into())));
    media.settle(Duration::from_secs(60)).unwrap();
    assert_eq!(image.flushes(), 1);
}

#[test]
fn state_carries_the_request_under_way_to_another_disk() {
    let (image, other) = (MemoryImage::zeros(1024), MemoryImage::zeros(1024));
    let mut from = disk(&image, ICOUNT);
    from.submit(Instant(7), Request::Write { offset: 512, data: Arc::new(vec![8; 512]) });
    let mut to = disk(&other, ICOUNT);
    to.set_state(from.state());
    assert_eq!(to.poll_at(), from.poll_at());
    assert_eq!(wait(&mut to).done, 512);
    assert_eq!(other.bytes()[512..], [8; 512]);
}

#[test]
fn several_requests_finish_in_order_with_their_tags() {
    for clock in [ICOUNT, ClockMode::Realtime] {
        let image = MemoryImage::zeros(4096);
        let mut disk = disk(&image, clock);
        disk.enqueue(Instant::ZERO, 70, Request::Write { offset: 0, data: Arc::new(vec![6; 1024]) });
        disk.enqueue(Instant::ZERO, 30, Request::WriteZeroes { offset: 512, len: 512, unmap: true });
        disk.enqueue(Instant::ZERO, 50, Request::Read { offset: 0, len: 1024 });
        disk.enqueue(Instant::ZERO, 10, Request::Discard { offset: 0, len: 4096 });
        disk.enqueue(Instant::ZERO, 90, Request::Discard { offset: 512, len: 4096 });
        if clock == ICOUNT {
            let first = disk.poll_at().unwrap();
            assert_eq!(first, Instant(100_000 + 10_240));
            assert_eq!(disk.completed(first).map(|(tag, _)| tag), Some(70));
            assert_eq!(disk.poll_at(), Some(first.plus_nanos(100_000)), "a disk does one thing at a time");
            assert!(disk.completed(first).is_none());
        }
        let mut tags = Vec::new();
        while disk.is_busy() {
            if let Some((tag, completion)) = disk.completed(Instant(u64::MAX)) {
                tags.push(tag);
                assert_eq!(completion.error.is_some(), tag == 90, "beyond the end");
                if tag == 50 {
                    assert_eq!(completion.data, [vec![6; 512], vec![0; 512]].concat());
                }
            }
        }
        assert_eq!(tags[tags.len() - 4..], [30, 50, 10, 90]);
    }
}

#[test]
fn submitted_request_replaces_those_that_are_queued() {
    let image = MemoryImage::zeros(4096);
    let mut disk = disk(&image, ClockMode::Realtime);
    disk.enqueue(Instant::ZERO, 1, Request::Write { offset: 0, data: Arc::new(vec![6; 512]) });
    disk.enqueue(Instant::ZERO, 2, Request::Flush);
    assert_eq!(read(&mut disk, 0, 512).data, vec![6; 512]);
    assert!(!disk.is_busy() && disk.completed(Instant(u64::MAX)).is_none());
}

#[test]
fn error_that_stops_the_machine_is_tried_again_when_it_goes_on() {
    for clock in [ICOUNT, ClockMode::Realtime] {
        let image = MemoryImage::zeros(4096);
        image.fail(0..512, io::ErrorKind::StorageFull);
        let mut disk = disk(&image, clock);
        let media = disk.media();
        let (sender, stops) = channel();
        media.set_stop_handler(Arc::new(move |stall: &Stall| sender.send(stall.clone()).unwrap()));
        disk.submit(Instant::ZERO, Request::Write { offset: 0, data: Arc::new(vec![7; 512]) });
        // The device looks meanwhile, and does not wait.
        while stops.try_recv().map(|stall| assert!(!stall.is_read && stall.no_space)).is_err() {
            assert!(disk.finished(Instant(u64::MAX)).is_none());
        }
        media.retry();
        stops.recv().unwrap();
        while disk.poll_at().is_some() {
            assert!(disk.finished(Instant(u64::MAX)).is_none());
        }
        image.heal();
        media.retry();
        let completion = wait(&mut disk);
        assert!(completion.error.is_none() && completion.done == 512);
        assert_eq!(image.bytes()[..512], [7; 512]);
        // Other errors are reported, and reads are.
        image.fail(0..512, io::ErrorKind::PermissionDenied);
        assert!(write(&mut disk, 0, vec![1; 512]).error.is_some());
        assert!(read(&mut disk, 0, 512).error.is_some());
        // The end of the process does not wait for a machine that is stopped.
        media.set_error_policy(ErrorPolicy { read: OnError::Stop, write: OnError::Ignore });
        assert!(write(&mut disk, 0, vec![1; 512]).error.is_none());
        disk.submit(Instant::ZERO, Request::Read { offset: 0, len: 512 });
        assert!(stops.recv().unwrap().is_read);
        media.settle(Duration::from_secs(60)).unwrap();
        assert!(wait(&mut disk).error.is_some());
    }
}

#[test]
fn limited_disk_takes_its_time() {
    let mut limits = Limits::default();
    limits.operations[0].average = 100;
    let mut disk = disk(&MemoryImage::zeros(4096), ICOUNT);
    disk.media().set_limits(limits);
    for i in 0..110 {
        disk.enqueue(Instant::ZERO, i, Request::Read { offset: 0, len: 512 });
    }
    while disk.current.len() > 1 {
        disk.completed(Instant(u64::MAX)).unwrap();
    }
    let last = disk.poll_at().unwrap();
    assert!((980_000_000..1_020_000_000).contains(&last.0), "{last:?}: 10 at once, then 100 for each second");
    let mut disk = self::disk(&MemoryImage::zeros(4096), ClockMode::Realtime);
    disk.media().set_limits(limits);
    let start = std::time::Instant::now();
    for _ in 0..20 {
        read(&mut disk, 0, 512);
    }
    assert!(start.elapsed() > Duration::from_millis(80), "{:?}", start.elapsed());
}

#[test]
fn state_carries_several_requests_with_their_tags() {
    let (image, other) = (MemoryImage::zeros(1024), MemoryImage::zeros(1024));
    let mut from = disk(&image, ICOUNT);
    from.enqueue(Instant(7), 3, Request::Write { offset: 0, data: Arc::new(vec![8; 1024]) });
    from.enqueue(Instant(7), 9, Request::WriteZeroes { offset: 0, len: 512, unmap: false });
    let mut to = disk(&other, ICOUNT);
    to.set_state(from.state());
    assert_eq!(to.completed(Instant(u64::MAX)).map(|(tag, _)| tag), Some(3));
    assert_eq!(to.completed(Instant(u64::MAX)).map(|(tag, _)| tag), Some(9));
    assert_eq!(other.bytes(), [vec![0; 512], vec![8; 512]].concat());
}

#[test]
fn cancelled_writes_that_a_slow_host_has_not_carried_out_are_bounded() {
    for clock in [ICOUNT, ClockMode::Realtime] {
        let image = MemoryImage::zeros(LONGEST);
        let mut disk = disk(&image, clock);
        image.hold(true);
        let data = Arc::new(vec![1; LONGEST]);
        for _ in 0..200 {
            disk.submit(Instant::ZERO, Request::Write { offset: 0, data: data.clone() });
        }
        // Each that waits has a copy of its data in real life.
        assert!(Arc::strong_count(&data) < 70, "{}", Arc::strong_count(&data));
        assert!(wait(&mut disk).error.is_some_and(|error| error.kind() == io::ErrorKind::ResourceBusy));
        image.hold(false);
        let late = Instant(1 << 60);
        while disk.cancelled.len() > 1 {
            disk.forget_finished(late);
        }
        disk.submit(late, Request::Write { offset: 0, data: Arc::new(vec![7; 512]) });
        assert!(wait(&mut disk).error.is_none(), "the disk works again");
        assert_eq!(image.bytes()[0], 7);
    }
}

/// Guest memory that holds 1, and `len` bytes of it in two runs.
fn memory_and_place(len: usize) -> (Arc<GuestMemory>, Scatter) {
    let memory = Arc::new(GuestMemory::new(1 << 20, 0).unwrap());
    memory.write(0, &[1; 640 << 10]);
    let segments = [(0x1100, 700), (0x4_0000, len as u32 - 700)].map(|(address, len)| Segment { address, len });
    let place = Scatter::new(&memory, &segments, 0, len);
    (memory, place)
}

fn bytes_of(place: &Scatter) -> Vec<u8> {
    let mut bytes = vec![0; place.len()];
    assert_eq!(place.read(0, &mut bytes), bytes.len());
    bytes
}

#[test]
fn data_move_between_image_and_guest_memory() {
    const LEN: usize = 300 << 10;
    let pattern: Vec<u8> = (0..LEN).map(|i| (i / 512 + i) as u8).collect();
    for clock in [ICOUNT, ClockMode::Realtime] {
        let image = MemoryImage::zeros(LEN + 512);
        let mut disk = disk(&image, clock);
        let (_memory, place) = memory_and_place(LEN);
        assert_eq!(place.write(0, &pattern), LEN);
        disk.enqueue_write(Instant::ZERO, 1, 512, place.clone());
        let completion = wait(&mut disk);
        assert!(completion.error.is_none() && completion.done == LEN);
        assert!(image.bytes()[512..] == pattern);
        place.write(0, &[0; LEN]);
        disk.enqueue_read(Instant::ZERO, 2, 512, place.clone());
        let completion = wait(&mut disk);
        assert!(completion.error.is_none() && completion.done == LEN);
        if clock == ICOUNT {
            assert!(completion.data == pattern, "the device is to put it there");
        } else {
            assert!(completion.data.is_empty() && bytes_of(&place) == pattern);
        }
    }
}

#[test]
fn two_threads_move_long_data_that_lie_on_the_host() {
    const LEN: usize = 1 << 20;
    let pattern: Vec<u8> = (0..LEN).map(|i| (i / 512 + i) as u8).collect();
    let image = MemoryImage::zeros(LEN + 512);
    image.share();
    let mut disk = disk(&image, ClockMode::Realtime);
    let (memory, place) = memory_and_place(300 << 10);
    let long = Scatter::new(&memory, &[Segment { address: 0x2_0000, len: 512 << 10 }; 2], 0, LEN);
    for len in [place.len(), long.len()] {
        let place = if len == LEN { &long } else { &place };
        place.write(0, &pattern[..len]);
        let expected = bytes_of(place);
        disk.enqueue_write(Instant::ZERO, 1, 512, place.clone());
        assert_eq!(wait(&mut disk).done, len);
        assert!(image.bytes()[512..512 + len] == expected);
        place.write(0, &vec![0; len]);
        disk.enqueue_read(Instant::ZERO, 2, 512, place.clone());
        let completion = wait(&mut disk);
        assert!(completion.error.is_none() && completion.done == len && completion.data.is_empty());
        assert!(bytes_of(place) == expected);
    }
    // Pieces of 128 KiB, one of them cut where the image's halves meet.
    assert_eq!(image.shared(), (3 + 9, 3 + 9));
    // The worker alone finds out how far it goes.
    image.fail(200_000..200_001, io::ErrorKind::Other);
    let whole = (200_000 - 512) / 512 * 512;
    disk.enqueue_read(Instant::ZERO, 3, 512, place.clone());
    let completion = wait(&mut disk);
    assert!(completion.error.is_some() && completion.done == whole && completion.data.is_empty());
    place.write(0, &[9; LEN]);
    disk.enqueue_write(Instant::ZERO, 4, 512, place.clone());
    let completion = wait(&mut disk);
    assert!(completion.error.is_some() && completion.done == whole);
    assert!(image.bytes()[512..512 + whole] == vec![9; whole]);
    image.heal();
    image.hold(true);
    disk.enqueue(Instant::ZERO, 5, Request::Flush);
    disk.enqueue_read(Instant::ZERO, 6, 0, place.clone());
    disk.cancel();
    place.write(0, &[3; LEN]);
    image.hold(false);
    assert_eq!(read(&mut disk, 0, 512).done, 512);
    assert_eq!(bytes_of(&place), vec![3; place.len()], "cancelled");
}

/// An image that is told of by the lengths of what is read and written.
struct Lengths {
    image: MemoryImage,
    whole: bool,
    seen: std::sync::mpsc::Sender<usize>,
}

impl Image for Lengths {
    fn len(&self) -> u64 {
        self.image.len()
    }
    fn is_read_only(&self) -> bool {
        false
    }
    fn prefers_whole(&self) -> bool {
        self.whole
    }
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.seen.send(buffer.len()).unwrap();
        self.image.read_at(offset, buffer)
    }
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.seen.send(bytes.len()).unwrap();
        self.image.write_at(offset, bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn image_that_prefers_whole_requests_gets_them() {
    const LEN: usize = 300 << 10;
    for (whole, expected) in [(true, &[LEN][..]), (false, &[128 << 10, 128 << 10, 44 << 10])] {
        let (seen, lengths) = channel();
        let image = Box::new(Lengths { image: MemoryImage::zeros(LEN), whole, seen });
        let mut disk = Disk::with_image("drive", false, ClockMode::Realtime, "memory", image).unwrap();
        let (_memory, place) = memory_and_place(LEN);
        disk.enqueue_write(Instant::ZERO, 1, 0, place.clone());
        disk.enqueue_read(Instant::ZERO, 2, 0, place);
        assert_eq!((wait(&mut disk).done, wait(&mut disk).done), (LEN, LEN));
        assert_eq!(lengths.try_iter().collect::<Vec<_>>(), [expected, expected].concat());
    }
}

#[test]
fn error_amid_guest_memory_tells_how_far_the_request_went() {
    const LEN: usize = 300 << 10;
    let image = MemoryImage::new(vec![7; LEN]);
    image.fail(200_000..200_001, io::ErrorKind::Other);
    let whole = 200_000 / 512 * 512;
    let mut disk = disk(&image, ClockMode::Realtime);
    let (_memory, place) = memory_and_place(LEN);
    disk.enqueue_read(Instant::ZERO, 1, 0, place.clone());
    let completion = wait(&mut disk);
    assert!(completion.error.is_some() && completion.done == whole && completion.data.is_empty());
    assert!(bytes_of(&place) == [vec![7; whole], vec![1; LEN - whole]].concat());
    place.write(0, &[9; LEN]);
    disk.enqueue_write(Instant::ZERO, 2, 0, place.clone());
    let completion = wait(&mut disk);
    assert!(completion.error.is_some() && completion.done == whole);
    assert!(image.bytes() == [vec![9; whole], vec![7; LEN - whole]].concat());
    disk.enqueue_read(Instant::ZERO, 3, 512, place.clone());
    assert_eq!(wait(&mut disk).error.map(|error| error.kind()), Some(io::ErrorKind::InvalidInput), "beyond the end");
    // An error that the guest is not to see reads as zeros.
    disk.media().set_error_policy(ErrorPolicy { read: OnError::Ignore, write: OnError::Report });
    disk.enqueue_read(Instant::ZERO, 4, 0, place);
    let completion = wait(&mut disk);
    assert!(completion.error.is_none() && completion.data == vec![0; LEN]);
}

#[test]
fn cancelled_requests_leave_guest_memory_alone() {
    let image = MemoryImage::new(vec![7; 4096]);
    let mut disk = disk(&image, ClockMode::Realtime);
    let (_memory, place) = memory_and_place(2048);
    image.hold(true);
    disk.enqueue_read(Instant::ZERO, 1, 0, place.clone());
    disk.enqueue_write(Instant::ZERO, 2, 2048, place.clone());
    disk.cancel();
    image.hold(false);
    assert_eq!(read(&mut disk, 2048, 2048).data, [7; 2048]);
    assert_eq!(bytes_of(&place), [1; 2048]);
    disk.enqueue_write(Instant::ZERO, 3, 0, place);
    assert!(wait(&mut disk).error.is_none());
    assert_eq!(image.bytes()[..2049], [vec![1; 2048], vec![7]].concat(), "later requests have their right");
}

#[test]
fn state_carries_requests_of_guest_memory_as_plain_ones() {
    let (image, other) = (MemoryImage::new(vec![7; 4096]), MemoryImage::new(vec![6; 4096]));
    let mut from = disk(&image, ClockMode::Realtime);
    let (_memory, place) = memory_and_place(1024);
    image.hold(true);
    from.enqueue_write(Instant::ZERO, 1, 0, place.clone());
    from.enqueue_read(Instant::ZERO, 2, 512, place);
    let mut to = disk(&other, ClockMode::Realtime);
    to.set_state(from.state());
    image.hold(false);
    assert_eq!(wait(&mut to).done, 1024);
    assert_eq!(wait(&mut to).data, [vec![1; 512], vec![6; 512]].concat());
}
