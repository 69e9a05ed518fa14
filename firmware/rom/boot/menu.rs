//! The boot menu (`-boot menu=on,splash-time=`): offered for a while after POST, on the screen and on COM1. Esc or F12 shows what can be booted,
//! and a key chooses.
//!
//! Writing and reading are the ROM monitor's (`monitor/console.rs`); DS is the EBDA's segment.

use super::*;
use crate::rom::layout::monitor as state;
use crate::rom::monitor::{BRIGHT, TEXT};
use crate::rom::services::disk::tables::{CD_COUNT, CD_MAP, DISK_COUNT, DISK_MAP, FLOPPY_TYPES, drive};

const ESCAPE: u32 = 0x1B;
const ENTER: u32 = 0x0D;
/// What INT 16h AH=10h returns for F12.
const F12: u32 = 0x8600;
/// Milliseconds of a tick, rounded.
const TICK: u32 = 55;
/// Fields of an option ROM and of its expansion header: where that is, and where the product's name is.
const PNP_HEADER: i32 = 0x1A;
const PRODUCT: i32 = 0x10;

pub fn emit(rom: &mut Rom) {
    offer(rom);
    list(rom);
    waits(rom);
}

fn offer(rom: &mut Rom) {
    asm! { rom;
        // Offers the menu if it is wanted; the choice goes to system::BOOT_CHOICE. May change all registers.
        label("boot.menu");
        mov(ax, i32::from(BDA_SEGMENT));
        mov(ds, ax);
        mov(ds, word_ptr(bda::EBDA));
        cmp(dword_ptr(system::MENU_WAIT), NEVER);
        je(".done");
        cld();
        call("monitor.line");
        colour(TEXT);
        say("\r\nPress Esc or F12 for the boot menu.\r\n");
        mov(eax, dword_ptr(system::MENU_WAIT));
        call("boot.deadline");
        label(".poll");
        call("monitor.poll");
        jz(".wait");
        cmp(al, ESCAPE);
        je("boot.list");
        cmp(ax, F12 as i32);
        je("boot.list");
        label(".wait");
        sti();
        hlt();
        call("boot.due");
        jc(".poll");
        label(".done");
        ret();
    }
}

fn list(rom: &mut Rom) {
    asm! { rom;
        label("boot.list");
        mov(byte_ptr(state::MENU_COUNT), 0);
        say("\r\nBoot from:\r\n\r\n");
        xor(cx, cx);
        label(".floppy");
        mov(bx, cx);
        cmp(byte_ptr(bx + FLOPPY_TYPES), 0);
        je(".no_floppy");
        mov(al, FLOPPY);
        mov(ah, cl);
        call("boot.line");
        say("Diskette drive ");
        mov(al, cl);
        add(al, u32::from(b'A'));
        call("monitor.char");
        call("monitor.newline");
        label(".no_floppy");
        inc(cx);
        cmp(cx, 2);
        jb(".floppy");
        mov(bx, DISK_MAP);
        mov(cl, byte_ptr(DISK_COUNT));
        mov(ch, FIRST_HARD_DISK);
        mov(ax, HARD_DISK);
        mov(di, u32::from(rom.text("Hard disk ")));
        call("boot.drives");
        mov(bx, CD_MAP);
        mov(cl, byte_ptr(CD_COUNT));
        mov(ch, FIRST_CD);
        mov(ax, CD);
        mov(di, u32::from(rom.text("CD-ROM ")));
        call("boot.drives");
        xor(cx, cx);
        label(".rom");
        cmp(cl, byte_ptr(system::BEV_COUNT));
        jae(".monitor");
        mov(al, ROM_ENTRY);
        mov(ah, cl);
        call("boot.line");
        mov(bx, cx);
        shl(bx, 3);
        mov(es, word_ptr(bx + (system::BEV + 2)));
        mov(bx, word_ptr(PNP_HEADER).es());
        mov(si, word_ptr(bx + PRODUCT).es());
        test(si, si);
        jz(".nameless");
        // No more than fits a line.
        mov(bx, 60);
        label(".name");
        mov(al, byte_ptr(si).es());
        inc(si);
        test(al, al);
        jz(".named");
        call("monitor.char");
        dec(bx);
        jnz(".name");
        jmp(".named");
        label(".nameless");
        say("Option ROM");
        label(".named");
        call("monitor.newline");
        inc(cx);
        jmp(".rom");
        label(".monitor");
        mov(ax, MONITOR);
        call("boot.line");
        say("ROM monitor\r\n\r\nPress a key of the list, or Enter to boot as usual.\r\n");

        label(".key");
        call("monitor.key");
        cmp(al, ENTER);
        je(".usual");
        cmp(al, ESCAPE);
        je(".usual");
        sub(al, u32::from(b'1'));
        cmp(al, 9);
        jb(".known");
        // Letters of either case follow the digits.
        add(al, u32::from(b'1'));
        or(al, 0x20);
        sub(al, u32::from(b'a'));
        jb(".key");
        add(al, 9);
        label(".known");
        cmp(al, byte_ptr(state::MENU_COUNT));
        jae(".key");
        movzx(bx, al);
        add(bx, bx);
        mov(ax, word_ptr(bx + state::MENU));
        mov(word_ptr(system::BOOT_CHOICE), ax);
        label(".usual");
        jmp("monitor.newline");

        // CL drives of kind AL, the first being drive CH, whose records are at the words at BX, with the heading at CS:DI. Changes AX, BX,
        // CX, SI.
        label("boot.drives");
        sub(cl, 1);
        jb(".done");
        call("boot.line");
        mov(si, di);
        call("monitor.text");
        mov(si, word_ptr(bx));
        add(bx, 2);
        push(ax);
        mov(al, ch);
        inc(ch);
        call("monitor.hex8");
        say("h  ");
        push(si);
        lea(si, word_ptr(si + drive::MODEL));
        call("monitor.text_ds");
        pop(si);
        call("monitor.capacity");
        pop(ax);
        inc(ah);
        jmp("boot.drives");
        label(".done");
        ret();

        // Begins the line for the entry AX. Keeps all registers.
        label("boot.line");
        pushad();
        movzx(bx, byte_ptr(state::MENU_COUNT));
        inc(byte_ptr(state::MENU_COUNT));
        mov(dl, bl);
        add(bx, bx);
        mov(word_ptr(bx + state::MENU), ax);
        say("  ");
        colour(BRIGHT);
        mov(al, dl);
        add(al, u32::from(b'1'));
        cmp(dl, 9);
        jb(".digit");
        add(al, u32::from(b'a' - b'1') - 9);
        label(".digit");
        call("monitor.char");
        colour(TEXT);
        say("  ");
        popad();
        ret();
    }
}

/// Waits in ticks of the timer; the day's end ends them, too.
fn waits(rom: &mut Rom) {
    asm! { rom;
        // Begins a wait of EAX milliseconds. DS = EBDA. Changes EAX, ECX, EDX, ES.
        label("boot.deadline");
        xor(edx, edx);
        mov(ecx, TICK);
        div(ecx);
        mov(dword_ptr(system::WAIT_TICKS), eax);
        push(i32::from(BDA_SEGMENT));
        pop(es);
        mov(eax, dword_ptr(bda::TICKS).es());
        mov(dword_ptr(system::WAIT_FROM), eax);
        ret();

        // CF while the wait lasts. Changes EAX, ES.
        label("boot.due");
        push(i32::from(BDA_SEGMENT));
        pop(es);
        mov(eax, dword_ptr(bda::TICKS).es());
        sub(eax, dword_ptr(system::WAIT_FROM));
        cmp(eax, dword_ptr(system::WAIT_TICKS));
        ret();
    }
}
