use super::*;

/// A bzImage of protocol 2.15 with `payload` bytes of kernel and both entry points.
pub fn image(payload: usize) -> Vec<u8> {
    let mut file = vec![0; 5 * SECTOR + payload.next_multiple_of(16)];
    put(&mut file, 0x1f1, 1, 4);
    put(&mut file, 0x1f4, 4, payload.div_ceil(16) as u64);
    put(&mut file, 0x1fe, 2, 0xaa55);
    put(&mut file, 0x200, 2, 0x6aeb);
    file[0x202..0x206].copy_from_slice(b"HdrS");
    put(&mut file, 0x206, 2, 0x20f);
    put(&mut file, 0x211, 1, 1);
    put(&mut file, 0x214, 4, 0x10_0000);
    put(&mut file, 0x22c, 4, 0x7fff_ffff);
    put(&mut file, 0x234, 1, 1);
    put(&mut file, 0x236, 2, 1);
    put(&mut file, 0x238, 4, 2047);
    put(&mut file, 0x258, 8, 0x100_0000);
    put(&mut file, 0x260, 4, 0x100_0000);
    file[5 * SECTOR..].fill(0x90);
    file
}

fn word(memory: &GuestMemory, address: u64) -> u64 {
    let mut bytes = [0; 4];
    memory.read(address, &mut bytes);
    u32::from_le_bytes(bytes).into()
}

#[test]
fn kernel_with_64_bit_entry_starts_in_long_mode_where_the_processor_has_it() {
    let memory = GuestMemory::new(0x800_0000, 0).unwrap();
    let kernel = LinuxKernel::parse(&image(1000)).unwrap();
    let mut options = LinuxOptions { command_line: b"quiet", initrd: &[7; 5000], rsdp: 0xe_0000, ..Default::default() };
    let state = kernel.load(&memory, &options).unwrap();
    assert_eq!((state.rip, state.efer, state.gpr[gpr::ESI]), (0x10_0000, 0, BOOT_PARAMS));
    options.long_mode = true;
    let state = kernel.load(&memory, &options).unwrap();
    assert_eq!((state.rip, state.efer, state.gpr[gpr::ESI]), (0x10_0200, 0x500, BOOT_PARAMS));

    assert_eq!(word(&memory, BOOT_PARAMS + 0x70), 0xe_0000);
    let initrd = word(&memory, BOOT_PARAMS + 0x218);
    assert_eq!(initrd, 0x800_0000 - 0x2000);
    assert_eq!(word(&memory, initrd) & 0xff, 7);
    assert_eq!(word(&memory, BOOT_PARAMS + 0x21c), 5000);
    let mut line = [0xff; 6];
    memory.read(word(&memory, BOOT_PARAMS + 0x228), &mut line);
    assert_eq!(&line, b"quiet\0");
    assert_eq!(word(&memory, BOOT_PARAMS + 0x1e8) & 0xff, 5);
    assert_eq!(word(&memory, 0x10_0000), 0x9090_9090);
}

#[test]
fn initrd_stays_below_initrd_addr_max_and_above_the_kernel() {
    let memory = GuestMemory::new(0x400_0000, 0).unwrap();
    let mut file = image(64);
    put(&mut file, 0x22c, 4, 0x2ff_ffff);
    let kernel = LinuxKernel::parse(&file).unwrap();
    let initrd = vec![1; 0x100_0001];
    let error = kernel.load(&memory, &LinuxOptions { initrd: &initrd, ..Default::default() }).unwrap_err();
    assert_eq!(error, LinuxBootError::InitrdDoesNotFit { size: 0x100_0001, floor: 0x200_0000, ceiling: 0x300_0000 });
    kernel.load(&memory, &LinuxOptions { initrd: &initrd[1..], ..Default::default() }).unwrap();
    assert_eq!(word(&memory, BOOT_PARAMS + 0x218), 0x200_0000);
}

#[test]
fn old_kernels_need_a_bios() {
    let memory = GuestMemory::new(0x100_0000, 0).unwrap();
    for (protocol, loadflags) in [(0x200, 0), (0x200, 1), (0x201, 1), (0x20f, 0)] {
        let mut file = image(64);
        put(&mut file, 0x206, 2, protocol);
        put(&mut file, 0x211, 1, loadflags);
        let kernel = LinuxKernel::parse(&file).unwrap();
        assert!(kernel.needs_bios());
        assert_eq!(kernel.load(&memory, &LinuxOptions::default()).unwrap_err(), LinuxBootError::NeedsBios);
    }
}

#[test]
fn small_machines_and_long_command_lines_are_refused_in_one_line() {
    let memory = GuestMemory::new(0x100_0000, 0).unwrap();
    let kernel = LinuxKernel::parse(&image(64)).unwrap();
    let error = kernel.load(&memory, &LinuxOptions::default()).unwrap_err();
    assert_eq!(error, LinuxBootError::KernelDoesNotFit { needed: 0x200_0000, available: 0x100_0000 });
    let line = [b'x'; 2048];
    let error = kernel.load(&memory, &LinuxOptions { command_line: &line, ..Default::default() }).unwrap_err();
    assert_eq!(error, LinuxBootError::CommandLineTooLong { length: 2048, limit: 2047 });
    let error = kernel.load(&memory, &LinuxOptions { command_line: b"a\0b", ..Default::default() }).unwrap_err();
    assert_eq!(error, LinuxBootError::CommandLineNul);
    assert!(!error.to_string().contains('\n'));
}

#[test]
fn truncated_and_damaged_images_never_panic() {
    let memory = GuestMemory::new(0x300_0000, 0).unwrap();
    let good = image(5000);
    for len in (0..good.len() - 15).step_by(61).chain([0x1f1, 0x202, 0x206, MIN_FILE - 1]) {
        assert!(LinuxKernel::parse(&good[..len]).is_err(), "accepted {len} bytes");
    }
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..20_000 {
        let mut file = good.clone();
        for _ in 0..3 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            file[0x1f0 + (seed % 0xa0) as usize] = (seed >> 32) as u8;
        }
        if let Ok(kernel) = LinuxKernel::parse(&file) {
            let options = LinuxOptions { initrd: &[1; 100], long_mode: true, ..Default::default() };
            let _ = kernel.load(&memory, &options);
            let _ = kernel.through_firmware(memory.low_ram(), &options);
        }
    }
}
