//! INT 19h, bootstrap, and INT 18h, nothing to boot.
//!
//! | | |
//! |---|---|
//! | INT 19h | loads the first sector of what is to be booted to 0000:7C00 and jumps there with DL = BIOS drive number; does not return |
//! | INT 18h | what a boot sector calls that cannot go on: the next device, and when there is none, the ROM monitor |

use crate::rom::asm::*;
use crate::rom::layout::STACK_TOP;

/// Where software that knows IBM's BIOS finds INT 19h in F000.
const ENTRY: u16 = 0xE6F2;
/// Where boot sectors are loaded (segment 0), and the signature in their last word.
const BOOT_SECTOR: u32 = 0x7C00;
const SIGNATURE: u32 = 0xAA55;
const FIRST_HARD_DISK: u32 = 0x80;

pub fn emit(rom: &mut Rom) {
    let [low, high] = rom.offset("int19").to_le_bytes();
    rom.fixed(ENTRY, &[0xEA, low, high, 0x00, 0xE0]);
    asm! { rom;
        label("int19");
        xor(ax, ax);
        mov(ss, ax);
        mov(sp, u32::from(STACK_TOP));
        mov(dl, FIRST_HARD_DISK);
        call("boot.drive");
        mov(dl, 0);
        call("boot.drive");
        int(0x18);
        vector(0x19, "int19");

        label("int18");
        debug("Nothing to boot");
        label(".halt");
        sti();
        hlt();
        jmp(".halt");
        vector(0x18, "int18");

        // Boots drive DL, or returns.
        label("boot.drive");
        sti();
        xor(ax, ax);
        mov(es, ax);
        mov(bx, BOOT_SECTOR);
        mov(word_ptr(bx + 0x1FE).es(), 0);
        mov(ax, 0x0201);
        mov(cx, 1);
        mov(dh, 0);
        push(dx);
        int(0x13);
        pop(dx);
        jc(".no");
        cmp(word_ptr(BOOT_SECTOR + 0x1FE).es(), SIGNATURE);
        jne(".no");
        xor(ax, ax);
        mov(ds, ax);
        mov(es, ax);
        mov(dh, al);
        jmp_far_to(0, BOOT_SECTOR);
        label(".no");
        ret();
    }
}
