//! Services of the system BIOS under QEMU, where it is installed; `guest` tells how.

mod guest;

use guest::{BUFFER, Program, run_boot, run_option_rom as run};
use iced_x86::code_asm::*;

const RAM: u32 = 256 << 20;

#[test]
fn int11_and_int12_tell_equipment_and_base_memory() {
    let Some(words) = run(|p| {
        p.call(0x11, 0)?;
        p.report_eax()?;
        p.call(0x12, 0)?;
        p.report_eax()
    }) else {
        return;
    };
    assert_eq!(words[0] & 0x32, 0x22, "a coprocessor, 80x25 in colour");
    assert!((512..640).contains(&words[1]), "{words:?}");
}

#[test]
fn int15_e820_covers_ram_without_overlaps() {
    let Some(words) = run(|p| {
        let mut next = p.0.create_label();
        p.0.xor(ebx, ebx)?;
        p.0.set_label(&mut next)?;
        p.0.mov(edx, 0x534D_4150)?;
        p.0.mov(ecx, 20)?;
        p.0.mov(di, BUFFER)?;
        p.call(0x15, 0xE820)?;
        p.report_carry()?;
        p.report(&[eax, ecx])?;
        for field in 0..5 {
            p.0.mov(eax, dword_ptr(BUFFER + 4 * field))?;
            p.report_eax()?;
        }
        p.0.test(ebx, ebx)?;
        p.0.jnz(next)
    }) else {
        return;
    };
    let mut ranges = Vec::new();
    for entry in words.chunks_exact(8) {
        assert_eq!(entry[..3], [0, 0x534D_4150, 20]);
        let wide = |low: usize| u64::from(entry[low]) | u64::from(entry[low + 1]) << 32;
        ranges.push((wide(3), wide(5), entry[7]));
    }
    ranges.sort();
    for pair in ranges.windows(2) {
        assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:x?}");
    }
    let ram: u64 = ranges.iter().filter(|range| range.2 == 1).map(|range| range.1).sum();
    assert!(ram > u64::from(RAM) - (1 << 20) && ram < u64::from(RAM), "{ranges:x?}");
    assert!(ranges.iter().any(|&(start, size, kind)| kind == 2 && start <= 0xE_0000 && start + size == 0x10_0000));
}

#[test]
fn int15_sizes_agree_with_each_other() {
    let Some(words) = run(|p| {
        p.call(0x15, 0x8800)?;
        p.report_carry()?;
        p.report_eax()?;
        p.0.xor(ebx, ebx)?;
        p.0.xor(ecx, ecx)?;
        p.0.xor(edx, edx)?;
        p.call(0x15, 0xE801)?;
        p.report_carry()?;
        p.report(&[eax, ebx, ecx, edx])
    }) else {
        return;
    };
    assert_eq!(words[..2], [0, 0xFC00], "88h ends at 64 MiB");
    assert_eq!(words[2..4], [0, 0x3C00]);
    assert!(words[4] > 0xEF0 && words[4] < 0xF00, "{words:x?}");
    assert_eq!(words[5..], words[3..5]);
}

#[test]
fn int15_moves_extended_memory_and_switches_a20() {
    let Some(words) = run(|p| {
        // 2403h, 2401h, 2402h.
        p.call(0x15, 0x2403)?;
        p.report_carry()?;
        p.0.movzx(ebx, bx)?;
        p.report(&[ebx])?;
        p.call(0x15, 0x2401)?;
        p.call(0x15, 0x2402)?;
        p.report_eax()?;
        // Three words, an odd number, from the buffer to 2 MiB and back to elsewhere.
        p.0.mov(dword_ptr(BUFFER), 0x1234_5678)?;
        p.0.mov(dword_ptr(BUFFER + 4), 0xCAFE_BABEu32)?;
        p.0.mov(dword_ptr(BUFFER + 0x14), 0)?;
        for (from, to) in [(BUFFER, 0x20_0000), (0x20_0000, BUFFER + 0x10)] {
            let table = BUFFER + 0x100;
            for offset in 0..12 {
                p.0.mov(dword_ptr(table + 4 * offset), 0)?;
            }
            for (place, address) in [(0x10, from), (0x18, to)] {
                p.0.mov(dword_ptr(table + place), 0xFFFF | address << 16)?;
                p.0.mov(dword_ptr(table + place + 4), 0x9300 | address >> 16)?;
            }
            p.0.mov(si, table)?;
            p.0.mov(cx, 3)?;
            p.call(0x15, 0x8700)?;
            p.report_carry()?;
        }
        p.0.mov(eax, dword_ptr(BUFFER + 0x10))?;
        p.report_eax()?;
        p.0.mov(eax, dword_ptr(BUFFER + 0x14))?;
        p.report_eax()
    }) else {
        return;
    };
    assert_eq!(words, [0, 3, 1, 0, 0, 0x1234_5678, 0xBABE]);
}

#[test]
fn int15_tells_what_it_has_not_got() {
    let Some(words) = run(|p| {
        for function in [0x4100, 0xD800, 0xFF00] {
            p.call(0x15, function)?;
            p.report_carry()?;
            p.report_eax()?;
        }
        // The keyboard intercept gives the scan code back.
        p.0.stc()?;
        p.call(0x15, 0x4F1E)?;
        p.report_carry()?;
        p.report_eax()?;
        // Waiting 20 ms takes about that on the refresh bit; here it only has to end.
        p.0.xor(cx, cx)?;
        p.0.mov(dx, 20_000)?;
        p.call(0x15, 0x8600)?;
        p.report_carry()
    }) else {
        return;
    };
    assert_eq!(words, [1, 0x8600, 1, 0x8600, 1, 0x8600, 1, 0x4F1E, 0]);
}

/// IRQ 9 is IRQ 2 for software, and the coprocessor's error INT 02h.
#[test]
fn interrupts_of_the_second_controller_reach_old_vectors() {
    let Some(words) = run(|p| {
        // inc dword [BUFFER]; iret, with CS = 0.
        let handler = [&[0x66, 0x2E, 0xFF, 0x06][..], &(BUFFER as u16).to_le_bytes(), &[0xCF]].concat();
        p.0.mov(dword_ptr(BUFFER), 0)?;
        for (at, byte) in handler.iter().enumerate() {
            p.0.mov(byte_ptr(BUFFER + 0x10 + at as u32), u32::from(*byte))?;
        }
        for (old, new) in [(0x02u32, 0x75u32), (0x0A, 0x71)] {
            p.0.push(dword_ptr(old * 4))?;
            p.0.mov(dword_ptr(old * 4), BUFFER + 0x10)?;
            p.0.int(new)?;
            p.0.pop(dword_ptr(old * 4))?;
            p.0.mov(eax, dword_ptr(BUFFER))?;
            p.report_eax()?;
        }
        Ok(())
    }) else {
        return;
    };
    assert_eq!(words, [1, 2]);
}

#[test]
fn int1a_keeps_the_clock() {
    let Some(words) = run(|p| {
        p.0.mov(cx, 0x1259)?;
        p.0.mov(dx, 0x3000)?;
        p.call(0x1A, 0x0300)?;
        p.report_carry()?;
        p.0.mov(cx, 0x2031)?;
        p.0.mov(dx, 0x1224)?;
        p.call(0x1A, 0x0500)?;
        p.report_carry()?;
        p.0.xor(ecx, ecx)?;
        p.0.xor(edx, edx)?;
        p.call(0x1A, 0x0200)?;
        p.report_carry()?;
        p.report(&[ecx, edx])?;
        p.call(0x1A, 0x0400)?;
        p.report(&[ecx, edx])?;
        p.0.mov(cx, 7)?;
        p.0.mov(dx, 0x1234)?;
        p.call(0x1A, 0x0100)?;
        p.call(0x1A, 0x0000)?;
        p.report(&[eax, ecx])
    }) else {
        return;
    };
    assert_eq!(words[..4], [0, 0, 0, 0x1259]);
    assert!(words[4] >> 8 >= 0x30 && words[4] & 0xFF == 0, "{words:x?}");
    assert_eq!(words[5..], [0x2031, 0x1224, 0, 7]);
}

#[test]
fn int1a_pci_bios_finds_and_reads_functions() {
    let Some(words) = run(|p| {
        p.0.xor(ebx, ebx)?;
        p.0.xor(ecx, ecx)?;
        p.call(0x1A, 0xB101)?;
        p.report_carry()?;
        p.report(&[ebx, ecx, edx])?;
        // The IDE function by identity, power management by class, and one that is not there.
        p.0.mov(ecx, 0x7010)?;
        p.0.mov(edx, 0x8086)?;
        p.0.mov(si, 0)?;
        p.call(0x1A, 0xB102)?;
        p.report_carry()?;
        p.report(&[ebx])?;
        p.0.mov(di, 0x20)?;
        p.call(0x1A, 0xB10A)?;
        p.report(&[ecx])?;
        p.0.mov(ecx, 0x06_8000)?;
        p.call(0x1A, 0xB103)?;
        p.report(&[ebx])?;
        p.0.mov(ecx, 0x1111)?;
        p.call(0x1A, 0xB102)?;
        p.report_carry()?;
        p.0.movzx(eax, ah)?;
        p.report_eax()?;
        // A word write, a byte read, a bad register.
        p.0.mov(bx, 0x08)?;
        p.0.mov(di, 0x62)?;
        p.0.mov(cx, 0x800B)?;
        p.call(0x1A, 0xB10C)?;
        p.0.xor(ecx, ecx)?;
        p.0.mov(di, 0x63)?;
        p.call(0x1A, 0xB108)?;
        p.report(&[ecx])?;
        p.call(0x1A, 0xB109)?;
        p.report_carry()?;
        p.0.movzx(eax, ah)?;
        p.report_eax()
    }) else {
        return;
    };
    assert_eq!(words[..4], [0, 0x210, 0, 0x2049_4350]);
    assert_eq!(words[4..6], [0, 0x09]);
    assert_eq!(words[6] & !0xFFF, 0xC000, "the bus master's ports");
    assert_eq!(words[7..], [0x0B, 1, 0x86, 0x80, 1, 0x87]);
}

#[test]
fn tables_are_placed_with_good_checksums() {
    // Reports, for each signature found on a 16-byte boundary of F0000 to FFFFF, its address and the sum of its bytes.
    let Some(words) = run(|p| {
        for (signature, length) in
            [(*b"RSD ", 20), (*b"_SM_", 31), (*b"_32_", 16), (*b"$PIR", 32 + 31 * 16), (*b"$PnP", 33), (*b"_MP_", 16)]
        {
            let a = &mut p.0;
            let (mut next, mut sum, mut found, mut done) =
                (a.create_label(), a.create_label(), a.create_label(), a.create_label());
            a.mov(ax, 0xF000)?;
            a.mov(ds, ax)?;
            a.xor(si, si)?;
            a.set_label(&mut next)?;
            a.cmp(dword_ptr(si), u32::from_le_bytes(signature))?;
            a.je(found)?;
            a.add(si, 16)?;
            a.jnz(next)?;
            a.mov(ebx, u32::MAX)?;
            a.jmp(done)?;
            a.set_label(&mut found)?;
            a.xor(ebx, ebx)?;
            a.mov(cx, length)?;
            a.set_label(&mut sum)?;
            a.add(bl, byte_ptr(si))?;
            a.inc(si)?;
            a.loop_(sum)?;
            a.set_label(&mut done)?;
            p.report(&[ebx])?;
        }
        Ok(())
    }) else {
        return;
    };
    assert_eq!(words, [0; 6]);
}

/// The MultiProcessor configuration table, which POST has completed: processor, APICs, the route of two interrupts.
#[test]
fn mp_table_tells_the_processor_and_its_interrupts() {
    let Some(words) = run(|p| {
        let a = &mut p.0;
        let (mut search, mut sum) = (a.create_label(), a.create_label());
        a.mov(ax, 0xF000)?;
        a.mov(ds, ax)?;
        a.xor(si, si)?;
        a.set_label(&mut search)?;
        a.add(si, 16)?;
        a.cmp(dword_ptr(si), u32::from_le_bytes(*b"_MP_"))?;
        a.jne(search)?;
        a.mov(si, word_ptr(si + 4))?;
        a.mov(di, si)?;
        a.xor(ebx, ebx)?;
        a.mov(cx, word_ptr(si + 4))?;
        a.set_label(&mut sum)?;
        a.add(bl, byte_ptr(di))?;
        a.inc(di)?;
        a.loop_(sum)?;
        p.report(&[ebx])?;
        // Signature, local APIC, processor, its signature as CPUID has it.
        for offset in [0, 36, 44] {
            p.0.mov(eax, dword_ptr(si + offset))?;
            p.report_eax()?;
        }
        p.0.mov(eax, 1)?;
        p.0.cpuid()?;
        p.0.sub(eax, dword_ptr(si + 48))?;
        p.report_eax()?;
        // The first PCI interrupt: slot 1, pin A, the SCI's. Behind the processor, two buses and the I/O APIC.
        for offset in [44 + 20 + 16, 44 + 20 + 24, 44 + 20 + 28] {
            p.0.mov(eax, dword_ptr(si + offset))?;
            p.report_eax()?;
        }
        Ok(())
    }) else {
        return;
    };
    let local_version = words[3] >> 16 & 0xFF;
    assert!((0x10..0x20).contains(&local_version), "{words:x?}");
    let expected = [0, u32::from_le_bytes(*b"PCMP"), 0xFEE0_0000, 0x0300_0000 | local_version << 16, 0];
    assert_eq!(words[..5], expected);
    assert_eq!(words[5..], [0x0120_0002, 0x0001_0003, 0x0900_0400]);
}

#[test]
fn boot_sector_reads_and_writes_its_disk_by_chs_and_lba() {
    // Sector n (from 1) is filled with the byte n.
    let sectors: Vec<u8> = (1..=0xFF).flat_map(|n| [n; 512]).collect();
    for interface in ["if=ide", "if=virtio"] {
        let ran = run_boot(&sectors, interface, |p| {
            p.0.movzx(edx, dl)?;
            p.report(&[edx])?;
            // CHS 0/0/4 is LBA 3.
            p.0.mov(bx, BUFFER)?;
            p.0.mov(cx, 4)?;
            p.0.mov(dh, 0)?;
            p.call(0x13, 0x0202)?;
            p.report_carry()?;
            p.report(&[eax])?;
            for sector in 0..2 {
                p.0.mov(eax, dword_ptr(BUFFER + 512 * sector))?;
                p.report_eax()?;
            }
            // A packet: write the two sectors to LBA 20h, then read one from far behind the end.
            p.0.mov(dword_ptr(0x600), 0x0002_0010)?;
            p.0.mov(dword_ptr(0x604), BUFFER)?;
            p.0.mov(dword_ptr(0x608), 0x20)?;
            p.0.mov(dword_ptr(0x60C), 0)?;
            p.0.mov(si, 0x600)?;
            p.call(0x13, 0x4300)?;
            p.report_carry()?;
            p.0.mov(dword_ptr(0x608), 0x1000_0000)?;
            p.call(0x13, 0x4200)?;
            p.report_carry()?;
            p.0.mov(bx, 0x55AA)?;
            p.call(0x13, 0x4100)?;
            p.0.movzx(ebx, bx)?;
            p.report(&[ebx])
        });
        let Some((words, disk)) = ran else { return };
        assert_eq!(words, [0x80, 0, 2, 0x0303_0303, 0x0404_0404, 0, 1, 0xAA55], "{interface}");
        assert_eq!(disk[0x20 * 512..0x22 * 512], [[3; 512], [4; 512]].concat());
        assert_eq!(disk[0x22 * 512], 0x22);
    }
}

#[test]
fn virtio_disk_tells_its_size_and_refuses_what_it_cannot_do() {
    let ran = run_boot(&[7; 2047 * 512], "if=virtio,readonly=on", |p| {
        // Size from the extended parameters, which have no table.
        p.0.mov(word_ptr(0x600), 74)?;
        p.0.mov(si, 0x600)?;
        p.call(0x13, 0x4800)?;
        p.report_carry()?;
        for offset in [0u32, 4, 8, 12, 16, 20, 24, 28] {
            p.0.mov(eax, dword_ptr(0x600 + offset))?;
            p.report_eax()?;
        }
        p.0.mov(cx, 2)?;
        p.0.mov(dh, 0)?;
        p.0.mov(bx, BUFFER)?;
        p.call(0x13, 0x0301)?;
        p.report_carry()?;
        p.report(&[eax])?;
        p.call(0x13, 0x0201)?;
        p.report_carry()?;
        p.0.mov(eax, dword_ptr(BUFFER))?;
        p.report_eax()
    });
    let Some((words, disk)) = ran else { return };
    assert_eq!(words[..4], [0, 0x0003_001E, 2, 16], "{words:x?}");
    assert_eq!(words[4..9], [63, 2048, 0, 0xFFFF_0200, 0x0000_FFFF]);
    assert_eq!(words[9..], [1, 0x0300, 0, 0x0707_0707], "write protected");
    assert!(disk[512..].iter().all(|byte| *byte == 7));
}

#[test]
fn long_transfers_take_several_commands_and_segments() {
    let sectors: Vec<u8> = (1..=0xFF).flat_map(|n| [n; 512]).collect();
    for interface in ["if=ide", "if=virtio"] {
        let ran = run_boot(&sectors, interface, |p| {
            // 254 sectors from LBA 1.
            p.0.mov(dword_ptr(0x600), 254 << 16 | 0x10)?;
            p.0.mov(dword_ptr(0x604), 0x2000_0010)?;
            p.0.mov(dword_ptr(0x608), 1)?;
            p.0.mov(dword_ptr(0x60C), 0)?;
            p.0.mov(si, 0x600)?;
            p.call(0x13, 0x4200)?;
            p.report_carry()?;
            for sector in [0, 127, 128, 253] {
                p.0.mov(ax, 0x2001 + sector * 0x20)?;
                p.0.mov(es, ax)?;
                p.0.mov(eax, dword_ptr(0).es())?;
                p.report_eax()?;
            }
            // They go back two sectors further on, all but one of them.
            p.0.mov(word_ptr(0x602), 253)?;
            p.0.mov(word_ptr(0x608), 3)?;
            p.call(0x13, 0x4300)?;
            p.report_carry()?;
            p.call(0x13, 0x4400)?;
            p.report_carry()?;
            p.0.movzx(eax, word_ptr(0x602))?;
            p.report_eax()
        });
        let Some((words, disk)) = ran else { return };
        let bytes = [1, 128, 129, 254].map(|byte: u32| byte * 0x0101_0101);
        assert_eq!(words, [&[0][..], &bytes, &[0, 0, 253]].concat(), "{interface}");
        assert!(disk[512..3 * 512] == sectors[..2 * 512] && disk[3 * 512..] == sectors[..253 * 512]);
    }
}

/// ES:0 = the POST memory manager's table, which is on a multiple of 16 in the BIOS area. Changes BX.
fn find_pmm(p: &mut Program) -> Result<(), IcedError> {
    let mut next = p.0.create_label();
    p.0.mov(bx, 0xE000)?;
    p.0.set_label(&mut next)?;
    p.0.inc(bx)?;
    p.0.mov(es, bx)?;
    p.0.cmp(dword_ptr(0).es(), u32::from_le_bytes(*b"$PMM"))?;
    p.0.jne(next)
}

#[test]
fn option_roms_get_extended_memory_from_the_post_memory_manager() {
    let Some(words) = run(|p| {
        find_pmm(p)?;
        let mut call = |function: u16, arguments: &[u32], flags: Option<u16>| {
            if let Some(flags) = flags {
                p.0.push(i32::from(flags))?;
            }
            for argument in arguments.iter().rev() {
                p.0.push((*argument >> 16) as i32)?;
                p.0.push((*argument & 0xFFFF) as i32)?;
            }
            p.0.push(i32::from(function))?;
            p.0.call(dword_ptr(7).es())?;
            p.0.add(sp, 2 + 4 * arguments.len() as i32 + if flags.is_some() { 2 } else { 0 })?;
            p.0.shl(edx, 16)?;
            p.0.mov(dx, ax)?;
            p.report(&[edx])
        };
        call(0, &[0, u32::MAX], Some(2))?;
        call(0, &[0x1000, 0x1234_5678], Some(6))?;
        call(0, &[0x11, 0x8765_4321], Some(2))?;
        call(0, &[0x11, 1], Some(1))?;
        call(0, &[0xF00_0000, 2], Some(2))?;
        call(1, &[0x1234_5678], None)?;
        call(1, &[0x9999_9999], None)?;
        call(7, &[], None)
    }) else {
        return;
    };
    let [longest, first, second, low, far_too_long, found, unknown, other] = words[..] else { panic!("{words:x?}") };
    assert_eq!((longest, low, far_too_long, unknown, other), (0x10_0000, 0, 0, 0, u32::MAX));
    assert!(first.is_multiple_of(0x1_0000) && (0x20_0000..0x1000_0000 - 0x1_0000).contains(&first), "{first:x}");
    assert_eq!((second, found), (first - 0x110, first));
}

#[test]
fn block_that_was_allocated_last_can_be_had_again() {
    let Some(words) = run(|p| {
        find_pmm(p)?;
        for length in [0x100, 0x300] {
            for argument in [6, 0, 7, 0, length, 0] {
                p.0.push(argument)?;
            }
            p.0.call(dword_ptr(7).es())?;
            p.0.add(sp, 12)?;
            p.0.push(dx)?;
            p.0.push(ax)?;
            p.0.pop(edx)?;
            p.report(&[edx])?;
            p.0.push(edx)?;
            p.0.push(2)?;
            p.0.call(dword_ptr(7).es())?;
            p.0.add(sp, 6)?;
            p.report_eax()?;
        }
        Ok(())
    }) else {
        return;
    };
    let [first, _, second, _] = words[..] else { panic!("{words:x?}") };
    assert_eq!(words.iter().skip(1).step_by(2).map(|answer| answer & 0xFFFF).collect::<Vec<_>>(), [0, 0]);
    assert_eq!((first & 0xFFF, second), (0, first - 0x2000), "aligned to 4 KiB, and below the same end");
}
