use super::*;
use crate::board::elf::sample;

fn header(flags: u32, addresses: &[u32]) -> Vec<u8> {
    let words = [MAGIC, flags, 0u32.wrapping_sub(MAGIC).wrapping_sub(flags)];
    words.iter().chain(addresses).flat_map(|w| w.to_le_bytes()).collect()
}

fn options() -> KernelOptions {
    KernelOptions {
        name: "kernel.elf".into(),
        command_line: b"debug=1".to_vec(),
        modules: vec![
            Module { contents: b"first module".to_vec(), command_line: b"a.mod x".to_vec() },
            Module { contents: b"2".to_vec(), command_line: b"b.mod".to_vec() },
        ],
        ..KernelOptions::default()
    }
}

fn read(memory: &GuestMemory, address: u32) -> u32 {
    let mut bytes = [0; 4];
    memory.read(address.into(), &mut bytes);
    u32::from_le_bytes(bytes)
}

fn string(memory: &GuestMemory, address: u32) -> String {
    let mut bytes = [0; 64];
    memory.read(address.into(), &mut bytes);
    String::from_utf8_lossy(bytes.split(|b| *b == 0).next().unwrap()).into_owned()
}

#[test]
fn elf_kernel_gets_modules_memory_map_command_line_and_name() {
    let memory = GuestMemory::new(0x200_0000, 0).unwrap();
    let file = sample::elf32(0x10_0000, &header(3, &[]), 0x100, 0x10_000c);
    let state = MultibootKernel::parse(&file).unwrap().load(&memory, &options()).unwrap();
    assert_eq!((state.rip, state.gpr[gpr::EAX], state.cr0 & 0x8000_0001), (0x10_000c, BOOTED_MAGIC, 1));
    let info = state.gpr[gpr::EBX] as u32;
    assert_eq!(read(&memory, info), 0x24f);
    assert_eq!((read(&memory, info + 4), read(&memory, info + 8)), (639, 31 * 1024));
    assert_eq!(string(&memory, read(&memory, info + 16)), "kernel.elf debug=1");
    assert_eq!(string(&memory, read(&memory, info + 64)), "emu");
    assert_eq!(read(&memory, info + 20), 2);
    let list = read(&memory, info + 24);
    let (start, end) = (read(&memory, list), read(&memory, list + 4));
    assert_eq!((start % 4096, end - start, string(&memory, start)), (0, 12, "first module".into()));
    assert_eq!(string(&memory, read(&memory, list + 8)), "a.mod x");
    assert_eq!(string(&memory, read(&memory, list + 24)), "b.mod");
    let (length, map) = (read(&memory, info + 44), read(&memory, info + 48));
    assert_eq!((length, read(&memory, map), read(&memory, map + 12)), (5 * 24, 20, 0x9_fc00));
}

#[test]
fn flat_kernel_is_loaded_by_its_address_fields() {
    let memory = GuestMemory::new(0x200_0000, 0).unwrap();
    let fields = [0x20_0010, 0x20_0000, 0x20_0040, 0x20_0100, 0x20_0030];
    let mut file = vec![0xee; 0x20];
    file.extend(header(1 << 16, &fields));
    file.resize(0x80, 0xaa);
    memory.write(0x20_0040, &[0xff; 0x100]);
    let state = MultibootKernel::parse(&file).unwrap().load(&memory, &KernelOptions::default()).unwrap();
    assert_eq!(state.rip, 0x20_0030);
    assert_eq!(read(&memory, 0x20_0010), MAGIC);
    assert_eq!((read(&memory, 0x20_003c), read(&memory, 0x20_0040)), (0xaaaa_aaaa, 0));
    assert_eq!((read(&memory, 0x20_00fc), read(&memory, 0x20_0100)), (0, 0xffff_ffff));
}

#[test]
fn elf64_is_accepted_with_and_without_address_fields() {
    let memory = GuestMemory::new(0x200_0000, 0).unwrap();
    let plain = sample::elf64(0x10_0000, &header(0, &[]), &[]);
    let state = MultibootKernel::parse(&plain).unwrap().load(&memory, &KernelOptions::default()).unwrap();
    assert_eq!(state.rip, 0x10_0004);
    let offset = 64 + 2 * 56;
    let fields = [0x30_0000, 0x30_0000, 0, 0, 0x30_0020];
    let kludge = sample::elf64(0x10_0000, &[header(1 << 16, &fields), vec![0; 32]].concat(), &[]);
    let state = MultibootKernel::parse(&kludge).unwrap().load(&memory, &KernelOptions::default()).unwrap();
    assert_eq!((state.rip, read(&memory, 0x30_0000)), (0x30_0020, MAGIC));
    assert_eq!(find_header(&kludge), Some(offset));
}

#[test]
fn bad_headers_are_refused_by_name() {
    let parse = |flags, fields: &[u32]| MultibootKernel::parse(&[header(flags, fields), vec![0; 64]].concat());
    assert_eq!(parse(0, &[]).unwrap_err(), MultibootError::NoFormat);
    assert_eq!(parse(0x10, &[]).unwrap_err(), MultibootError::Flags(0x10));
    let field = |fields: &[u32]| match parse(1 << 16, fields).unwrap_err() {
        MultibootError::Address { field, .. } => field,
        other => panic!("{other}"),
    };
    assert_eq!(field(&[0x10_0000, 0x20_0000, 0, 0, 0]), "load_addr");
    assert_eq!(field(&[0x20_0000, 0x10_0000, 0, 0, 0]), "header_addr");
    assert_eq!(field(&[0x10_0000, 0x10_0000, 0x1000, 0, 0]), "load_end_addr");
    assert_eq!(field(&[0x10_0000, 0x10_0000, 0x10_0040, 0x10_0020, 0]), "bss_end_addr");
    assert_eq!(field(&[0x10_0000, 0x10_0000, 0, 0, 0x50_0000]), "entry_addr");
    let truncated = parse(1 << 16, &[0x10_0000, 0x10_0000, 0x20_0000, 0, 0x10_0000]).unwrap_err();
    assert_eq!(truncated, MultibootError::Truncated { expected: 0x10_0000, actual: 96 });
}

#[test]
fn modules_that_do_not_fit_are_refused() {
    let memory = GuestMemory::new(0x20_0000, 0).unwrap();
    let file = sample::elf32(0x10_0000, &header(0, &[]), 0, 0x10_0000);
    let modules = vec![Module { contents: vec![0; 0x10_0000], command_line: vec![] }];
    let options = KernelOptions { modules, ..KernelOptions::default() };
    let error = MultibootKernel::parse(&file).unwrap().load(&memory, &options).unwrap_err();
    assert!(matches!(error, MultibootError::Place(PlaceError::NoRoom { what: "a module", .. })));
}

#[test]
fn damaged_files_never_panic() {
    let memory = GuestMemory::new(0x40_0000, 0).unwrap();
    let fields = [0x10_0010, 0x10_0000, 0x10_0040, 0x10_0100, 0x10_0030];
    let good = [vec![0; 0x10], header(1 << 16, &fields), vec![0x90; 200]].concat();
    for len in 0..good.len() {
        let _ = MultibootKernel::parse(&good[..len]);
    }
    let mut seed = 7u64;
    for _ in 0..50_000 {
        let mut bad = good.clone();
        for _ in 0..2 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bad[0x1c + (seed >> 40) as usize % 20] = (seed >> 33) as u8;
        }
        if let Ok(kernel) = MultibootKernel::parse(&bad) {
            let _ = kernel.load(&memory, &KernelOptions::default());
        }
    }
}
