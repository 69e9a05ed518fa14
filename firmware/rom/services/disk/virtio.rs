//! Virtio disks on PCI: finding them, and moving sectors.
//!
//! VIRTIO 1.2: 4.1.4 (capabilities; 4.1.4.9 for the window that the configuration space has on a device's registers, which real mode
//! reaches wherever they are), 3.1 (initialisation), 2.7 (split virtqueue), 5.2 (block device). A device with nothing but the legacy
//! interface is left alone.
//!
//! A device is started for each request and reset behind it, so that nothing of it is under way while others have the machine. All
//! share one queue in the EBDA:
//!
//! ```text
//!  descriptors 0: header   1: data   2: status     available ring: always descriptor 0     used ring: its index says what is done
//! ```
//! Internal routines take the drive's record in SI and the EBDA's segment in DS, as in `ata`. They may change EAX, EBX, ECX, EDX and DI.

use super::tables::{drive, status, virtio as queue, *};
use crate::rom::asm::*;

/// Vendor and device numbers of a block device with and without the legacy interface.
const TRANSITIONAL: u32 = 0x1001_1AF4;
const MODERN: u32 = 0x1042_1AF4;
/// The configuration address register's enable bit, and the registers.
const ENABLE: u32 = 0x8000_0000;
const ADDRESS: i32 = 0xCF8;
const DATA: i32 = 0xCFC;
/// A vendor-specific capability, and the types that matter.
const VENDOR_SPECIFIC: u32 = 0x09;
const COMMON: u32 = 1;
const NOTIFY: u32 = 2;
const DEVICE: u32 = 4;
const WINDOW: u32 = 5;
/// Capabilities that are looked at: more do not fit.
const MOST_CAPABILITIES: i32 = 48;

/// Fields of the common configuration structure (4.1.4.3).
const DEVICE_FEATURE_SELECT: u8 = 0;
const DEVICE_FEATURE: u8 = 4;
const DRIVER_FEATURE_SELECT: u8 = 8;
const DRIVER_FEATURE: u8 = 12;
const DEVICE_STATUS: u8 = 20;
const QUEUE_SELECT: u8 = 22;
const QUEUE_SIZE: u8 = 24;
const QUEUE_ENABLE: u8 = 28;
const QUEUE_NOTIFY_OFF: u8 = 30;
const QUEUE_DESC: u8 = 32;
const QUEUE_DRIVER: u8 = 40;
const QUEUE_DEVICE: u8 = 48;
/// Of the device's (5.2.4): capacity, geometry, and bytes of a block.
const CAPACITY: i32 = 0;
const CYLINDERS: i32 = 16;
const HEADS: i32 = 18;
const SECTORS: i32 = 19;
const BLOCK_SIZE: i32 = 20;

/// Device status: reset, and the steps of initialisation.
const ACKNOWLEDGE: u32 = 1;
const DRIVER: u32 = 2;
const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;
const READY: u32 = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
/// Features: read only, a block size; VERSION_1 is bit 0 of the second word.
const RO: i32 = 1 << 5;
const BLK_SIZE: i32 = 1 << 6;
const VERSION_1: u32 = 1;

/// Descriptor flags: another follows, and the device writes.
const NEXT: i32 = 1;
const WRITES: i32 = 2;
/// Available ring: no interrupts, please.
const NO_INTERRUPT: i32 = 1;
/// In the tables below, with the width of a register: the value is an address in the EBDA.
const IN_EBDA: u8 = 0x80;

/// Most sectors of a request to the device.
const CHUNK: i32 = 128;
/// How long a device may take: half a minute, of which port 61h's refresh bit is a unit of 15 microseconds.
const PATIENCE: i32 = 2_000_000;

/// Writes to the common structure: offset, width, value.
fn steps(steps: &[(u8, u8, u32)]) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        steps.iter().flat_map(|(at, width, value)| [&[*at, *width][..], &value.to_le_bytes()].concat()).collect();
    // No width ends them.
    bytes.extend([0, 0]);
    bytes
}

pub fn emit(rom: &mut Rom) {
    transfer(rom);
    queue(rom);
    registers(rom);
    detect(rom);
    identify(rom);
}

/// The request: moves `REQUEST_COUNT` sectors from or to `REQUEST_LBA`.
fn transfer(rom: &mut Rom) {
    asm! { rom;
        // Carries out the request with ES:DI as buffer. Returns CF and the status in AH; REQUEST_DONE sectors have been moved.
        label("virtio.transfer");
        cmp(byte_ptr(REQUEST_ACTION), VERIFY);
        je(".verified");
        cmp(byte_ptr(REQUEST_ACTION), WRITE);
        jne(".allowed");
        test(byte_ptr(si + drive::FLAGS), drive::READ_ONLY);
        jnz("disk.request.protected");
        label(".allowed");
        mov(ax, es);
        movzx(eax, ax);
        shl(eax, 4);
        movzx(edi, di);
        add(eax, edi);
        mov(dword_ptr(queue::BUFFER), eax);
        call("virtio.start");
        mov(ah, status::CONTROLLER);
        jc(".end");
        label(".chunk");
        mov(ax, CHUNK);
        call("disk.chunk");
        mov(ah, 0);
        jz(".end");
        call("virtio.request");
        jc(".end");
        movzx(eax, word_ptr(REQUEST_CHUNK));
        call("disk.advance");
        shl(eax, 9);
        add(dword_ptr(queue::BUFFER), eax);
        jmp(".chunk");
        label(".end");
        // AH is 0, and CF clear, if all is done.
        pushf();
        push(ax);
        call("virtio.reset");
        pop(ax);
        popf();
        ret();
        label(".verified");
        mov(ax, word_ptr(REQUEST_COUNT));
        mov(word_ptr(REQUEST_DONE), ax);
        xor(ah, ah);
        ret();
    }
}

/// The queue: one request at a time.
fn queue(rom: &mut Rom) {
    let start = rom.bytes(steps(&[
        (DEVICE_STATUS, 1, ACKNOWLEDGE),
        (DEVICE_STATUS, 1, ACKNOWLEDGE | DRIVER),
        (DRIVER_FEATURE_SELECT, 4, 0),
        (DRIVER_FEATURE, 4, 0),
        (DRIVER_FEATURE_SELECT, 4, 1),
        (DRIVER_FEATURE, 4, VERSION_1),
        (DEVICE_STATUS, 1, ACKNOWLEDGE | DRIVER | FEATURES_OK),
        (QUEUE_SELECT, 2, 0),
        (QUEUE_SIZE, 2, queue::SIZE as u32),
        (QUEUE_DESC, IN_EBDA | 4, queue::DESCRIPTORS as u32),
        (QUEUE_DESC + 4, 4, 0),
        (QUEUE_DRIVER, IN_EBDA | 4, queue::AVAILABLE as u32),
        (QUEUE_DRIVER + 4, 4, 0),
        (QUEUE_DEVICE, IN_EBDA | 4, queue::USED as u32),
        (QUEUE_DEVICE + 4, 4, 0),
        (QUEUE_ENABLE, 2, 1),
        (DEVICE_STATUS, 1, READY),
    ]));
    asm! { rom;
        // Makes the device ready for requests. CF if it does not want to be.
        label("virtio.start");
        push(es);
        push(ds);
        pop(es);
        mov(di, queue::AREA);
        mov(cx, queue::AREA_SIZE);
        xor(al, al);
        rep().stosb();
        pop(es);
        mov(byte_ptr(queue::AVAILABLE), NO_INTERRUPT);
        // Header, data and status, in this order; the flags of the data depend on the request.
        mov(eax, queue::HEADER);
        call("virtio.linear");
        mov(dword_ptr(queue::DESCRIPTORS), eax);
        mov(dword_ptr(queue::DESCRIPTORS + 8), queue::HEADER_SIZE);
        mov(dword_ptr(queue::DESCRIPTORS + 12), NEXT | 1 << 16);
        mov(dword_ptr(queue::DESCRIPTORS + 16 + 12), NEXT | 2 << 16);
        add(eax, queue::HEADER_SIZE);
        mov(dword_ptr(queue::DESCRIPTORS + 32), eax);
        mov(dword_ptr(queue::DESCRIPTORS + 32 + 8), 1);
        mov(dword_ptr(queue::DESCRIPTORS + 32 + 12), WRITES);
        call("virtio.reset");
        jc(".done");
        mov(di, i32::from(start));
        call("virtio.steps");
        mov(bx, i32::from(DEVICE_STATUS));
        mov(cl, 1);
        call("virtio.read");
        cmp(al, READY);
        je(".done");
        stc();
        label(".done");
        ret();

        // Forgets whatever the device was told. CF if it does not come to rest.
        label("virtio.reset");
        mov(bx, i32::from(DEVICE_STATUS));
        mov(cl, 1);
        xor(eax, eax);
        call("virtio.write");
        mov(di, 0x1000);
        label(".wait");
        call("virtio.read");
        test(al, al);
        jz(".done");
        dec(di);
        jnz(".wait");
        stc();
        label(".done");
        ret();

        // Has the device carry out the current chunk. CF and the INT 13h status in AH.
        label("virtio.request");
        movzx(eax, byte_ptr(REQUEST_ACTION));
        mov(dword_ptr(queue::HEADER), eax);
        mov(ecx, dword_ptr(REQUEST_LBA));
        mov(dword_ptr(queue::HEADER + 8), ecx);
        mov(ecx, dword_ptr(REQUEST_LBA + 4));
        mov(dword_ptr(queue::HEADER + 12), ecx);
        mov(byte_ptr(queue::STATUS), 0xFF);
        mov(ecx, dword_ptr(queue::BUFFER));
        mov(dword_ptr(queue::DESCRIPTORS + 16), ecx);
        movzx(ecx, word_ptr(REQUEST_CHUNK));
        shl(ecx, 9);
        mov(dword_ptr(queue::DESCRIPTORS + 16 + 8), ecx);
        mov(cl, NEXT | WRITES);
        cmp(al, READ);
        je(".flags");
        mov(cl, NEXT);
        label(".flags");
        mov(byte_ptr(queue::DESCRIPTORS + 16 + 12), cl);
        inc(word_ptr(queue::AVAILABLE + 2));
        mov(ebx, dword_ptr(si + drive::NOTIFY));
        mov(ch, byte_ptr(si + drive::NOTIFY_BAR));
        mov(cl, 2);
        call("virtio.window");
        xor(ax, ax);
        out(dx, ax);
        mov(ecx, PATIENCE);
        in_byte(0x61);
        mov(ah, al);
        label(".wait");
        mov(bx, word_ptr(queue::USED + 2));
        cmp(bx, word_ptr(queue::AVAILABLE + 2));
        je(".done");
        in_byte(0x61);
        mov(bl, al);
        xor(bl, ah);
        test(bl, 0x10);
        jz(".wait");
        mov(ah, al);
        dec(ecx);
        jnz(".wait");
        mov(ah, status::TIMEOUT);
        stc();
        ret();
        label(".done");
        xor(ah, ah);
        cmp(byte_ptr(queue::STATUS), 0);
        je(".well");
        mov(ah, status::CONTROLLER);
        stc();
        label(".well");
        ret();
    }
}

/// The device's registers, through the window in its configuration space.
fn registers(rom: &mut Rom) {
    asm! { rom;
        // The physical address of EAX in the EBDA, in EAX. Keeps everything else.
        label("virtio.linear");
        push(ecx);
        mov(cx, ds);
        movzx(ecx, cx);
        shl(ecx, 4);
        add(eax, ecx);
        pop(ecx);
        ret();

        // Addresses register AL, a multiple of 4, of the configuration space; DX = the data port. Changes EAX.
        label("virtio.config");
        push(ax);
        movzx(eax, word_ptr(si + drive::FUNCTION));
        shl(eax, 8);
        or(eax, ENABLE as i32);
        pop(dx);
        mov(al, dl);
        mov(dx, ADDRESS);
        out(dx, eax);
        mov(dx, DATA);
        ret();

        // Opens the window to CL bytes at EBX in the region of base address register CH; DX = where they are. Keeps all others.
        label("virtio.window");
        push(eax);
        mov(al, 4);
        call(".field");
        mov(al, ch);
        out(dx, al);
        mov(al, 8);
        call(".field");
        mov(eax, ebx);
        out(dx, eax);
        mov(al, 12);
        call(".field");
        movzx(eax, cl);
        out(dx, eax);
        mov(al, 16);
        call(".field");
        pop(eax);
        ret();
        label(".field");
        add(al, byte_ptr(si + drive::WINDOW));
        jmp("virtio.config");

        // Writes CL bytes of EAX to register BX of the common structure. Keeps all but DX.
        label("virtio.write");
        push(ebx);
        push(cx);
        call("virtio.common");
        cmp(cl, 2);
        jb(".byte");
        je(".word");
        out(dx, eax);
        jmp(".done");
        label(".word");
        out(dx, ax);
        jmp(".done");
        label(".byte");
        out(dx, al);
        label(".done");
        pop(cx);
        pop(ebx);
        ret();

        // Reads CL bytes of register BX of the common structure into EAX, with zeros above. Keeps all but DX.
        label("virtio.read");
        push(ebx);
        push(cx);
        call("virtio.common");
        call("virtio.in");
        pop(cx);
        pop(ebx);
        ret();

        // Opens the window to register BX, of CL bytes. Changes EBX, CH.
        label("virtio.common");
        movzx(ebx, bx);
        add(ebx, dword_ptr(si + drive::COMMON));
        mov(ch, byte_ptr(si + drive::COMMON_BAR));
        jmp("virtio.window");

        // CL bytes from port DX, in EAX.
        label("virtio.in");
        xor(eax, eax);
        cmp(cl, 2);
        jb(".byte");
        je(".word");
        in_(eax, dx);
        ret();
        label(".word");
        in_(ax, dx);
        ret();
        label(".byte");
        in_(al, dx);
        ret();

        // Does the writes at CS:DI. Changes EAX, BX, CL, DX, DI.
        label("virtio.steps");
        movzx(bx, byte_ptr(di).cs());
        mov(cl, byte_ptr(di + 1).cs());
        test(cl, cl);
        jz(".done");
        mov(eax, dword_ptr(di + 2).cs());
        test(cl, i32::from(IN_EBDA));
        jz(".value");
        call("virtio.linear");
        and(cl, i32::from(!IN_EBDA));
        label(".value");
        call("virtio.write");
        add(di, 6);
        jmp("virtio.steps");
        label(".done");
        ret();
    }
}

/// POST: looks at the functions of bus 0.
fn detect(rom: &mut Rom) {
    asm! { rom;
        // Finds the disks, fills in their records. DS = EBDA, all registers may change.
        label("virtio.detect");
        mov(si, VIRTIO_DRIVES);
        xor(bp, bp);
        label(".function");
        mov(word_ptr(si + drive::FUNCTION), bp);
        mov(al, 0);
        call("virtio.config");
        in_(eax, dx);
        cmp(ax, -1);
        je(".absent");
        cmp(eax, TRANSITIONAL);
        je(".ours");
        cmp(eax, MODERN);
        jne(".other");
        label(".ours");
        call("virtio.found");
        cmp(si, VIRTIO_DRIVES + VIRTIO_SLOTS * drive::RECORD);
        jae(".done");
        label(".other");
        // A single-function device answers for function 0 only.
        test(bp, 7);
        jnz(".next");
        mov(al, 0x0C);
        call("virtio.config");
        in_(eax, dx);
        test(eax, 1 << 23);
        jnz(".next");
        label(".absent");
        test(bp, 7);
        jnz(".next");
        or(bp, 7);
        label(".next");
        inc(bp);
        cmp(bp, 0x100);
        jb(".function");
        label(".done");
        ret();

        // Enters the disk of the function of the record at SI into the tables, and moves SI on, if it can be driven.
        label("virtio.found");
        mov(byte_ptr(si + drive::WINDOW), 0);
        mov(dword_ptr(si + drive::COMMON), -1);
        mov(dword_ptr(si + drive::NOTIFY), -1);
        mov(dword_ptr(si + drive::DEVICE), -1);
        call("virtio.capabilities");
        cmp(byte_ptr(si + drive::WINDOW), 0);
        je(".not");
        mov(eax, dword_ptr(si + drive::COMMON));
        or(eax, dword_ptr(si + drive::NOTIFY));
        or(eax, dword_ptr(si + drive::DEVICE));
        js(".not");
        call("virtio.identify");
        jc(".not");
        mov(byte_ptr(si + drive::KIND), drive::VIRTIO);
        movzx(bx, byte_ptr(DISK_COUNT));
        inc(byte_ptr(DISK_COUNT));
        add(bx, bx);
        mov(word_ptr(bx + DISK_MAP), si);
        add(si, drive::RECORD);
        label(".not");
        ret();

        // Where the structures are. Changes EAX, EBX, CX, DX, DI.
        label("virtio.capabilities");
        mov(al, 0x34);
        call("virtio.config");
        in_(al, dx);
        mov(bl, al);
        mov(di, MOST_CAPABILITIES);
        label(".capability");
        and(bl, 0xFC);
        jz(".done");
        mov(al, bl);
        call("virtio.config");
        in_(eax, dx);
        // AL: the kind; AH: the next; CL: the type.
        mov(ecx, eax);
        shr(ecx, 24);
        push(ax);
        cmp(al, VENDOR_SPECIFIC);
        jne(".next");
        cmp(cl, WINDOW);
        je(".window");
        push(bx);
        push(cx);
        mov(al, bl);
        add(al, 4);
        call("virtio.config");
        in_(al, dx);
        push(ax);
        mov(al, bl);
        add(al, 8);
        call("virtio.config");
        in_(eax, dx);
        pop(dx);
        pop(cx);
        pop(bx);
        // DL: base address register; EAX: offset. The first structure of a type is the best one.
        cmp(cl, COMMON);
        je(".common");
        cmp(cl, NOTIFY);
        je(".notify");
        cmp(cl, DEVICE);
        jne(".next");
        cmp(dword_ptr(si + drive::DEVICE), -1);
        jne(".next");
        mov(dword_ptr(si + drive::DEVICE), eax);
        mov(byte_ptr(si + drive::DEVICE_BAR), dl);
        jmp(".next");
        label(".window");
        mov(byte_ptr(si + drive::WINDOW), bl);
        jmp(".next");
        label(".common");
        cmp(dword_ptr(si + drive::COMMON), -1);
        jne(".next");
        mov(dword_ptr(si + drive::COMMON), eax);
        mov(byte_ptr(si + drive::COMMON_BAR), dl);
        jmp(".next");
        label(".notify");
        cmp(dword_ptr(si + drive::NOTIFY), -1);
        jne(".next");
        mov(dword_ptr(si + drive::NOTIFY), eax);
        mov(byte_ptr(si + drive::NOTIFY_BAR), dl);
        // The multiplier.
        mov(al, bl);
        add(al, 16);
        call("virtio.config");
        in_(eax, dx);
        mov(dword_ptr(queue::MULTIPLIER), eax);
        label(".next");
        pop(ax);
        mov(bl, ah);
        dec(di);
        jnz(".capability");
        label(".done");
        ret();
    }
}

/// What the device's configuration says.
fn identify(rom: &mut Rom) {
    let greet = rom.bytes(steps(&[
        (DEVICE_STATUS, 1, ACKNOWLEDGE),
        (DEVICE_STATUS, 1, ACKNOWLEDGE | DRIVER),
        (DEVICE_FEATURE_SELECT, 4, 0),
        (QUEUE_SELECT, 2, 0),
    ]));
    let name = rom.text("virtio disk in slot ");
    asm! { rom;
        // Fills in the record at SI. CF if the disk has other blocks than the BIOS can use.
        label("virtio.identify");
        mov(byte_ptr(si + drive::FLAGS), drive::LBA);
        mov(byte_ptr(si + drive::MULTIPLE), 1);
        mov(word_ptr(si + drive::BLOCK_SIZE), 512);
        call("virtio.reset");
        jc(".done");
        mov(di, i32::from(greet));
        call("virtio.steps");
        // Where queue 0 is notified.
        mov(bx, i32::from(QUEUE_NOTIFY_OFF));
        mov(cl, 2);
        call("virtio.read");
        mul(dword_ptr(queue::MULTIPLIER));
        add(dword_ptr(si + drive::NOTIFY), eax);
        mov(bx, i32::from(DEVICE_FEATURE));
        mov(cl, 4);
        call("virtio.read");
        test(eax, RO);
        jz(".writable");
        or(byte_ptr(si + drive::FLAGS), drive::READ_ONLY);
        label(".writable");
        test(eax, BLK_SIZE);
        jz(".blocks");
        mov(ebx, BLOCK_SIZE);
        mov(cl, 4);
        call(".field");
        cmp(eax, 512);
        jne(".unfit");
        label(".blocks");
        mov(cl, 4);
        mov(ebx, CAPACITY);
        call(".field");
        mov(dword_ptr(si + drive::BLOCKS), eax);
        mov(ebx, CAPACITY + 4);
        call(".field");
        mov(dword_ptr(si + drive::BLOCKS + 4), eax);
        mov(cl, 2);
        mov(ebx, CYLINDERS);
        call(".field");
        mov(word_ptr(si + drive::CYLINDERS), ax);
        mov(cl, 1);
        mov(ebx, HEADS);
        call(".field");
        mov(word_ptr(si + drive::HEADS), ax);
        mov(ebx, SECTORS);
        call(".field");
        mov(word_ptr(si + drive::SECTORS), ax);
        mul(byte_ptr(si + drive::HEADS));
        mul(word_ptr(si + drive::CYLINDERS));
        or(ax, dx);
        jnz(".geometry");
        // A disk without a geometry gets one, since software divides by it.
        mov(word_ptr(si + drive::CYLINDERS), 16_383);
        mov(word_ptr(si + drive::HEADS), 16);
        mov(word_ptr(si + drive::SECTORS), 63);
        label(".geometry");
        mov(al, 0);
        call("ata.translate.usual");
        call("virtio.name");
        call("virtio.reset");
        label(".done");
        ret();
        label(".unfit");
        stc();
        ret();
        // CL bytes of the device's structure at EBX, in EAX. Keeps the others, but EDX.
        label(".field");
        push(cx);
        add(ebx, dword_ptr(si + drive::DEVICE));
        mov(ch, byte_ptr(si + drive::DEVICE_BAR));
        call("virtio.window");
        call("virtio.in");
        pop(cx);
        ret();

        // The model: that it is a virtio disk, and in which slot (hexadecimal).
        label("virtio.name");
        lea(di, word_ptr(si + drive::MODEL));
        mov(bx, i32::from(name));
        label(".character");
        mov(al, byte_ptr(bx).cs());
        mov(byte_ptr(di), al);
        inc(bx);
        inc(di);
        test(al, al);
        jnz(".character");
        mov(al, byte_ptr(si + drive::FUNCTION));
        shr(al, 3);
        mov(ah, al);
        shr(al, 4);
        mov(cl, al);
        call(".digit");
        mov(byte_ptr(di - 1), al);
        mov(al, ah);
        and(al, 0xF);
        call(".digit");
        mov(byte_ptr(di), al);
        mov(byte_ptr(di + 1), 0);
        ret();
        label(".digit");
        add(al, u32::from(b'0'));
        cmp(al, u32::from(b'9'));
        jbe(".decimal");
        add(al, u32::from(b'a' - b'9' - 1));
        label(".decimal");
        ret();
    }
}
