//! POST memory manager: gives option ROMs extended memory while they are initialised, so that they can leave most of themselves there.
//!
//! | function | in | DX:AX |
//! |---|---|---|
//! | 0 allocate | length in paragraphs (dword), handle (dword), flags: 1:0 which memory, 2 aligned to the length's lowest bit | address; 0: none. Length 0: the longest block, in paragraphs |
//! | 1 find | handle | address; 0: none |
//! | 2 deallocate | address | 0 |
//! | others | | -1 |
//!
//! A far call, arguments on the stack behind the function's number, which the caller takes away. POST Memory Manager Specification 1.01.
//! Blocks come from the end of memory below 4 GiB, downwards, and only the last one can be had again. What is in them stays after POST, but
//! is nobody's: the memory map calls it RAM. There is no conventional memory to be had.

use crate::rom::asm::*;
use crate::rom::services::pnp::close;

/// Blocks at most.
const BLOCKS: usize = 16;
/// Of each: handle, address, and where memory ended before it.
const BLOCK: usize = 12;
/// Nothing is given away below.
const BOTTOM: i32 = 0x20_0000;
/// The longest block, in paragraphs: 16 MiB.
const LONGEST: i32 = 0x10_0000;
const ANONYMOUS: i32 = -1;
/// Flags: extended memory will do, aligned.
const EXTENDED: i32 = 2;
const ALIGNED: i32 = 4;
/// Arguments, from BP on.
const FUNCTION: i32 = 6;
const FIRST: i32 = 8;
const HANDLE: i32 = 12;
const FLAGS: i32 = 16;

pub fn emit(rom: &mut Rom) {
    let mut header = b"$PMM\x01\x10\0".to_vec();
    header.extend(rom.offset("pmm.entry").to_le_bytes());
    header.extend(rom.segment("pmm.entry").to_le_bytes());
    header.resize(16, 0);
    close(&mut header, 6);
    let top = rom.linear("memory.top");
    asm! { rom;
        align(16);
        label("pmm.header");
        db(&header);
        // Where memory ends that has not been given away; how many blocks there are, and they.
        label("pmm.top");
        dd(&[0]);
        label("pmm.count");
        dw(&[0]);
        label("pmm.blocks");
        zeros(BLOCKS * BLOCK);

        // Changes EAX, DS.
        label("pmm.setup");
        push((top >> 4) as i32);
        pop(ds);
        mov(eax, dword_ptr((top & 0xF) as i32));
        push(cs);
        pop(ds);
        and(eax, -0x1000);
        mov(dword_ptr(rom.at("pmm.top")), eax);
        ret();

        // POST is over.
        label("pmm.end");
        mov(dword_ptr(rom.at("pmm.header")).cs(), 0);
        ret();

        label("pmm.entry");
        push(bp);
        mov(bp, sp);
        push(ds);
        push(si);
        push(ebx);
        push(ecx);
        push(cs);
        pop(ds);
        // EDX: the answer; SI: behind the last block.
        xor(edx, edx);
        imul_3(si, word_ptr(rom.at("pmm.count")), BLOCK as i32);
        add(si, rom.at("pmm.blocks"));
        mov(eax, dword_ptr(bp + FIRST));
        cmp(word_ptr(bp + FUNCTION), 1);
        jb(".allocate");
        je(".find");
        cmp(word_ptr(bp + FUNCTION), 2);
        je(".free");
        dec(edx);
        label(".done");
        mov(ax, dx);
        shr(edx, 16);
        pop(ecx);
        pop(ebx);
        pop(si);
        pop(ds);
        pop(bp);
        retf();

        label(".allocate");
        mov(ebx, dword_ptr(rom.at("pmm.top")));
        test(eax, eax);
        jz(".longest");
        test(byte_ptr(bp + FLAGS), EXTENDED);
        jz(".done");
        cmp(eax, LONGEST);
        ja(".done");
        cmp(word_ptr(rom.at("pmm.count")), BLOCKS as i32);
        jae(".done");
        mov(ecx, 1);
        test(byte_ptr(bp + FLAGS), ALIGNED);
        jz(".place");
        mov(ecx, eax);
        neg(ecx);
        and(ecx, eax);
        label(".place");
        shl(eax, 4);
        shl(ecx, 4);
        neg(ecx);
        mov(dword_ptr(si + 8), ebx);
        sub(ebx, eax);
        jb(".done");
        and(ebx, ecx);
        cmp(ebx, BOTTOM);
        jb(".done");
        mov(eax, dword_ptr(bp + HANDLE));
        mov(dword_ptr(si), eax);
        mov(dword_ptr(si + 4), ebx);
        mov(dword_ptr(rom.at("pmm.top")), ebx);
        inc(word_ptr(rom.at("pmm.count")));
        mov(edx, ebx);
        jmp(".done");
        label(".longest");
        sub(ebx, BOTTOM);
        jbe(".done");
        mov(edx, ebx);
        shr(edx, 4);
        cmp(edx, LONGEST);
        jbe(".done");
        mov(edx, LONGEST);
        jmp(".done");

        label(".find");
        cmp(eax, ANONYMOUS);
        je(".done");
        label(".next");
        cmp(si, rom.at("pmm.blocks"));
        jbe(".done");
        sub(si, BLOCK as i32);
        cmp(eax, dword_ptr(si));
        jne(".next");
        mov(edx, dword_ptr(si + 4));
        jmp(".done");

        label(".free");
        cmp(si, rom.at("pmm.blocks"));
        jbe(".done");
        sub(si, BLOCK as i32);
        cmp(eax, dword_ptr(si + 4));
        jne(".free");
        // Nobody finds it any more; the last one is memory again.
        mov(dword_ptr(si), ANONYMOUS);
        mov(dword_ptr(si + 4), 0);
        add(si, BLOCK as i32);
        imul_3(cx, word_ptr(rom.at("pmm.count")), BLOCK as i32);
        add(cx, rom.at("pmm.blocks"));
        cmp(si, cx);
        jne(".done");
        mov(ebx, dword_ptr(si - 4));
        mov(dword_ptr(rom.at("pmm.top")), ebx);
        dec(word_ptr(rom.at("pmm.count")));
        jmp(".done");
    }
}
