//! INT 09h (IRQ 1) and INT 16h, keyboard.
//!
//! | AH | INT 16h | in | returns |
//! |---|---|---|---|
//! | 00, 10 | read a key, waiting for one | | AX = scan code and character |
//! | 01, 11 | look at the next key | | ZF set if there is none, else AX |
//! | 02 | shift state | | AL = 40:17 |
//! | 03 | typematic | AL = 5, BH delay, BL rate | |
//! | 05 | store a key | CX | AL = 0, or 1 if the buffer is full |
//! | 09 | what there is | | AL = 30h: 0Ah, 10h to 12h |
//! | 0A | keyboard identifier | | BX = 41ABh |
//! | 6F | AL = 08: whether the keyboard is an extended one of HP's | | AH = 2: it is not |
//! | 92 | whether 10h to 12h are there, as DOS's KEYB asks | | AH = 80h: they are |
//! | 12 | extended shift state | | AL = 40:17, AH = both Ctrl and Alt keys and locks |
//!
//! 00 and 01 are for programs that know the 83-key keyboard: gray keys look like those of the keypad, and keys that it has not
//! got are dropped. INT 09h translates scan code set 1, as the 8042 delivers it, for a US keyboard; it gives INT 15h AH=4Fh each
//! scan code first; Ctrl-Alt-Del resets, Ctrl-Break calls INT 1Bh, Print Screen INT 05h, Alt and keypad digits make a character. The Pause key is ignored.
//! IBM PS/2 and PC BIOS Interface Technical Reference, INT 16h and appendix of scan codes.

use crate::rom::asm::*;
use crate::rom::layout::{BDA_SEGMENT, bda};

/// Where software that knows IBM's BIOS finds the services in F000.
const ENTRY_09: u16 = 0xE987;
const ENTRY_16: u16 = 0xE82E;

/// 40:17.
const RIGHT_SHIFT: u8 = 0x01;
const LEFT_SHIFT: u8 = 0x02;
const CTRL: u8 = 0x04;
const ALT: u8 = 0x08;
const SCROLL: u8 = 0x10;
const NUM: u8 = 0x20;
const CAPS: u8 = 0x40;
const INSERT: u8 = 0x80;
/// 40:96: last code was E1, E0; right Ctrl, right Alt, enhanced keyboard.
const LAST_E1: u32 = 0x01;
const LAST_E0: u32 = 0x02;
const ENHANCED: u32 = 0x10;

/// Keys with an entry in the table, of four words: plain, shifted, with Ctrl, with Alt; 0 for nothing.
const KEYS: usize = 0x59;
/// Shift keys: scan code, bit in 40:17, bit in 40:18 (held). The first ones are held, those from `FIRST_LOCK` on are toggled.
const SHIFTS: [(u8, u8, u8); 8] = [
    (0x36, RIGHT_SHIFT, 0),
    (0x2A, LEFT_SHIFT, 0),
    (0x1D, CTRL, 0x01),
    (0x38, ALT, 0x02),
    (0x46, SCROLL, 0x10),
    (0x45, NUM, 0x20),
    (0x3A, CAPS, 0x40),
    (0x52, INSERT, 0x80),
];
const FIRST_LOCK: u32 = 4;

pub fn emit(rom: &mut Rom) {
    rom.entry(ENTRY_09, "int09");
    rom.entry(ENTRY_16, "int16");
    interrupt(rom);
    keys(rom);
    buffer(rom);
    services(rom);
    setup(rom);
    let plain: Vec<u16> = table().concat();
    let gray: Vec<u8> = gray_table();
    asm! { rom;
        align(2);
        label("keyboard.table");
        dw(&plain);
        label("keyboard.gray");
        db(&gray);
        label("keyboard.shifts");
    }
    for (scan, flag, held) in SHIFTS {
        asm! { rom; db(&[scan, flag, held]); }
    }
}

/// What keys give, by scan code.
fn table() -> Vec<[u16; 4]> {
    let mut keys = vec![[0u16; 4]; KEYS];
    let mut set = |scan: u16, plain: u8, shifted: u8, ctrl: u16, alt: u16| {
        keys[usize::from(scan)] = [scan << 8 | u16::from(plain), scan << 8 | u16::from(shifted), ctrl, alt];
    };
    for (first, row) in [(0x10, "qwertyuiop"), (0x1E, "asdfghjkl"), (0x2C, "zxcvbnm")] {
        for (scan, letter) in (first..).zip(row.bytes()) {
            set(scan, letter, letter.to_ascii_uppercase(), scan << 8 | u16::from(letter & 0x1F), scan << 8);
        }
    }
    for (i, (digit, shifted)) in "1234567890".bytes().zip("!@#$%^&*()".bytes()).enumerate() {
        let ctrl = match digit {
            b'2' => 0x0300,
            b'6' => 0x071E,
            _ => 0,
        };
        set(2 + i as u16, digit, shifted, ctrl, 0x7800 + 0x100 * i as u16);
    }
    set(0x01, 0x1B, 0x1B, 0x011B, 0x0100);
    set(0x0C, b'-', b'_', 0x0C1F, 0x8200);
    set(0x0D, b'=', b'+', 0, 0x8300);
    set(0x0E, 0x08, 0x08, 0x0E7F, 0x0E00);
    set(0x0F, 0x09, 0x00, 0x9400, 0xA500);
    set(0x1A, b'[', b'{', 0x1A1B, 0x1A00);
    set(0x1B, b']', b'}', 0x1B1D, 0x1B00);
    set(0x1C, 0x0D, 0x0D, 0x1C0A, 0x1C00);
    set(0x27, b';', b':', 0, 0x2700);
    set(0x28, b'\'', b'"', 0, 0x2800);
    set(0x29, b'`', b'~', 0, 0x2900);
    set(0x2B, b'\\', b'|', 0x2B1C, 0x2B00);
    set(0x33, b',', b'<', 0, 0x3300);
    set(0x34, b'.', b'>', 0, 0x3400);
    set(0x35, b'/', b'?', 0, 0x3500);
    set(0x37, b'*', b'*', 0x9600, 0x3700);
    set(0x39, b' ', b' ', 0x3920, 0x3920);
    set(0x56, b'\\', b'|', 0, 0);
    // The keypad: shifted gives digits; Alt composes characters instead.
    let pad_ctrl = [0x77, 0x8D, 0x84, 0x8E, 0x73, 0x8F, 0x74, 0x90, 0x75, 0x91, 0x76, 0x92, 0x93];
    for ((scan, character), ctrl) in (0x47..).zip("789-456+1230.".bytes()).zip(pad_ctrl) {
        let sign = matches!(character, b'-' | b'+');
        set(scan, if sign { character } else { 0 }, character, ctrl << 8, if sign { scan << 8 } else { 0 });
    }
    for i in 0..10 {
        keys[0x3B + i] = [0x3B00, 0x5400, 0x5E00, 0x6800].map(|first| first + 0x100 * i as u16);
    }
    keys[0x57] = [0x8500, 0x8700, 0x8900, 0x8B00];
    keys[0x58] = [0x8600, 0x8800, 0x8A00, 0x8C00];
    keys
}

/// Alt codes of the gray keys 47h to 53h.
fn gray_table() -> Vec<u8> {
    vec![0x97, 0x98, 0x99, 0, 0x9B, 0, 0x9D, 0, 0x9F, 0xA0, 0xA1, 0xA2, 0xA3]
}

fn interrupt(rom: &mut Rom) {
    asm! { rom;
        label("int09");
        pushad();
        push(ds);
        push(es);
        cld();
        push(i32::from(BDA_SEGMENT));
        pop(ds);
        in_byte(0x64);
        and(al, 0x21);
        cmp(al, 0x01);
        jne(".done");
        in_byte(0x60);
        mov(ah, 0x4F);
        stc();
        int(0x15);
        jnc(".done");
        call("keyboard.code");
        label(".done");
        cli();
        out_byte(0x20, 0x20);
        pop(es);
        pop(ds);
        popad();
        iret();
        vector(0x09, "int09");

        // One scan code, AL. DS = 40h.
        label("keyboard.code");
        cmp(al, 0xE0);
        je(".prefix");
        cmp(al, 0xE1);
        je(".prefix");
        // The rest of the Pause key's code: 1D 45 9D C5.
        mov(bl, byte_ptr(bda::KEYBOARD_MODE));
        test(bl, LAST_E1);
        jnz(".pause");
        and(byte_ptr(bda::KEYBOARD_MODE), !LAST_E0 as i32 & 0xFF);
        // BL bit 1: a gray key. AH: the key, AL: with the release bit.
        mov(ah, al);
        and(ah, 0x7F);
        call("keyboard.shift");
        jc(".done");
        test(al, 0x80);
        jz("keyboard.key");
        label(".done");
        ret();
        label(".prefix");
        and(al, 1);
        mov(ah, LAST_E0);
        sub(ah, al);
        or(byte_ptr(bda::KEYBOARD_MODE), ah);
        ret();
        label(".pause");
        and(al, 0x7F);
        cmp(al, 0x45);
        jne(".done");
        and(byte_ptr(bda::KEYBOARD_MODE), !LAST_E1 as i32 & 0xFF);
        ret();
    }
}

fn keys(rom: &mut Rom) {
    asm! { rom;
        // Shift keys and locks: CF set if that is all of key AX. Changes CX, DX, SI.
        label("keyboard.shift");
        mov(si, u32::from(rom.offset("keyboard.shifts")));
        mov(cx, SHIFTS.len() as u32);
        label(".find");
        cmp(ah, byte_ptr(si).cs());
        je(".found");
        add(si, 3);
        loop_(".find");
        clc();
        ret();
        label(".found");
        mov(dl, byte_ptr(si + 1).cs());
        mov(dh, byte_ptr(si + 2).cs());
        cmp(cx, SHIFTS.len() as u32 - FIRST_LOCK);
        jbe(".lock");
        // Gray shifts are not keys, but part of other gray keys' codes.
        test(bl, LAST_E0);
        jz(".plain");
        test(dh, dh);
        jz(".all");
        // The right Ctrl and Alt have bits of their own: 4 and 8, as it happens those of 40:17.
        test(al, 0x80);
        jnz(".gray_up");
        or(byte_ptr(bda::KEYBOARD_MODE), dl);
        or(byte_ptr(bda::KEYBOARD_FLAGS), dl);
        jmp(".all");
        label(".gray_up");
        not(dl);
        and(byte_ptr(bda::KEYBOARD_MODE), dl);
        not(dl);
        test(byte_ptr(bda::KEYBOARD_FLAGS_2), dh);
        jnz(".all");
        jmp(".both_up");
        label(".plain");
        test(al, 0x80);
        jnz(".up");
        or(byte_ptr(bda::KEYBOARD_FLAGS), dl);
        or(byte_ptr(bda::KEYBOARD_FLAGS_2), dh);
        jmp(".all");
        label(".up");
        not(dh);
        and(byte_ptr(bda::KEYBOARD_FLAGS_2), dh);
        cmp(dl, u32::from(CTRL));
        jb(".both_up");
        test(byte_ptr(bda::KEYBOARD_MODE), dl);
        jnz(".all");
        label(".both_up");
        not(dl);
        and(byte_ptr(bda::KEYBOARD_FLAGS), dl);
        cmp(dl, u32::from(!ALT));
        jne(".all");
        // Alt is up: what was typed on the keypad is a character.
        xor(ax, ax);
        xchg(byte_ptr(bda::ALT_KEYPAD), al);
        test(al, al);
        jz(".all");
        call("keyboard.store");
        label(".all");
        stc();
        ret();

        // Locks, and Insert, which is a key as well. A key that is held down toggles once.
        label(".lock");
        cmp(ah, 0x46);
        jne(".not_break");
        test(bl, LAST_E0);
        jnz(".none");
        label(".not_break");
        cmp(ah, 0x52);
        jne(".toggle");
        test(bl, LAST_E0);
        jnz(".toggle");
        // Insert of the keypad may be a digit.
        test(byte_ptr(bda::KEYBOARD_FLAGS), u32::from(NUM | LEFT_SHIFT | RIGHT_SHIFT | ALT | CTRL));
        jnz(".none");
        label(".toggle");
        test(al, 0x80);
        jnz(".released");
        test(byte_ptr(bda::KEYBOARD_FLAGS_2), dh);
        jnz(".held");
        or(byte_ptr(bda::KEYBOARD_FLAGS_2), dh);
        xor(byte_ptr(bda::KEYBOARD_FLAGS), dl);
        push(ax);
        call("keyboard.lights");
        pop(ax);
        jmp(".held");
        label(".released");
        not(dh);
        and(byte_ptr(bda::KEYBOARD_FLAGS_2), dh);
        label(".held");
        cmp(ah, 0x52);
        jne(".all");
        label(".none");
        clc();
        ret();

        // A key that gives something: AH = its scan code, BL bit 1 set if it is gray.
        label("keyboard.key");
        mov(dl, byte_ptr(bda::KEYBOARD_FLAGS));
        movzx(si, ah);
        cmp(si, KEYS as u32);
        jae(".none");
        mov(dh, dl);
        and(dh, u32::from(CTRL | ALT));
        cmp(dh, u32::from(CTRL | ALT));
        jne(".no_reset");
        cmp(ah, 0x53);
        je("keyboard.reset");
        label(".no_reset");
        test(bl, LAST_E0);
        jnz("keyboard.gray_key");
        // Alt and a digit of the keypad.
        test(dl, u32::from(ALT));
        jz(".column");
        cmp(ah, 0x47);
        jb(".column");
        cmp(ah, 0x52);
        ja(".column");
        shl(si, 3);
        mov(cl, byte_ptr(si + (rom.at("keyboard.table") + 2)).cs());
        sub(cl, u32::from(b'0'));
        jb(".restore");
        mov(al, 10);
        mul(byte_ptr(bda::ALT_KEYPAD));
        add(al, cl);
        mov(byte_ptr(bda::ALT_KEYPAD), al);
        label(".none");
        ret();
        label(".restore");
        shr(si, 3);
        // Which column: Alt, Ctrl, or shifted as Shift and the lock that concerns the key say.
        label(".column");
        shl(si, 3);
        mov(bx, 6);
        test(dl, u32::from(ALT));
        jnz(".take");
        mov(bx, 4);
        test(dl, u32::from(CTRL));
        jnz(".take");
        xor(bx, bx);
        test(dl, u32::from(LEFT_SHIFT | RIGHT_SHIFT));
        jz(".unshifted");
        mov(bx, 2);
        label(".unshifted");
        cmp(ah, 0x47);
        jb(".letter");
        cmp(ah, 0x53);
        ja(".take");
        test(dl, u32::from(NUM));
        jz(".take");
        xor(bx, 2);
        jmp(".take");
        label(".letter");
        test(dl, u32::from(CAPS));
        jz(".take");
        mov(al, byte_ptr(si + rom.at("keyboard.table")).cs());
        cmp(al, u32::from(b'a'));
        jb(".take");
        cmp(al, u32::from(b'z'));
        ja(".take");
        xor(bx, 2);
        label(".take");
        mov(ax, word_ptr(bx + si + rom.at("keyboard.table")).cs());
        test(ax, ax);
        jz(".none");
        jmp("keyboard.store");

        // Gray keys: Print Screen, Break, Enter, slash, cursor keys.
        label("keyboard.gray_key");
        cmp(ah, 0x37);
        je(".print");
        cmp(ah, 0x46);
        je(".break");
        mov(bh, 0xA6);
        cmp(ah, 0x1C);
        mov(al, 0x0D);
        je(".character");
        mov(bh, 0xA4);
        cmp(ah, 0x35);
        mov(al, u32::from(b'/'));
        je(".character");
        cmp(ah, 0x47);
        jb("keyboard.key.none");
        cmp(ah, 0x53);
        ja("keyboard.key.none");
        mov(al, 0xE0);
        test(dl, u32::from(ALT));
        jnz(".alt");
        test(dl, u32::from(CTRL));
        jz("keyboard.store");
        shl(si, 3);
        mov(ah, byte_ptr(si + (rom.at("keyboard.table") + 5)).cs());
        jmp("keyboard.store");
        label(".alt");
        mov(ah, byte_ptr(si + (rom.at("keyboard.gray") - 0x47)).cs());
        jmp(".code");
        // Enter and slash: E0h and the character; Ctrl: 0Ah or code 95h; Alt: the code in BH.
        label(".character");
        test(dl, u32::from(ALT));
        mov(ah, bh);
        jnz(".code");
        mov(ah, 0xE0);
        test(dl, u32::from(CTRL));
        jz("keyboard.store");
        cmp(al, 0x0D);
        mov(al, 0x0A);
        je("keyboard.store");
        mov(ah, 0x95);
        label(".code");
        mov(al, 0);
        jmp("keyboard.store");
        label(".print");
        int(0x05);
        ret();
        label(".break");
        mov(byte_ptr(bda::BREAK), 0x80);
        mov(ax, word_ptr(bda::KEYBOARD_START));
        mov(word_ptr(bda::KEYBOARD_HEAD), ax);
        mov(word_ptr(bda::KEYBOARD_TAIL), ax);
        int(0x1B);
        xor(ax, ax);
        jmp("keyboard.store");

        label("keyboard.reset");
        mov(word_ptr(bda::RESET_FLAG), 0x1234);
        mov(al, 0xFE);
        out(0x64, al);
        label(".wait");
        hlt();
        jmp(".wait");
    }
}

fn buffer(rom: &mut Rom) {
    asm! { rom;
        // Stores AX behind the buffer's last key; CF set if it is full. DS = 40h. Changes SI, DI.
        label("keyboard.store");
        mov(si, word_ptr(bda::KEYBOARD_TAIL));
        mov(di, si);
        call("keyboard.advance");
        cmp(si, word_ptr(bda::KEYBOARD_HEAD));
        je(".full");
        mov(word_ptr(di), ax);
        mov(word_ptr(bda::KEYBOARD_TAIL), si);
        clc();
        ret();
        label(".full");
        stc();
        ret();

        // SI = the place after it.
        label("keyboard.advance");
        add(si, 2);
        cmp(si, word_ptr(bda::KEYBOARD_END));
        jb(".inside");
        mov(si, word_ptr(bda::KEYBOARD_START));
        label(".inside");
        ret();

        // Sets the keyboard's lights as the locks are, with interrupts off.
        label("keyboard.lights");
        mov(bh, byte_ptr(bda::KEYBOARD_FLAGS));
        shr(bh, 4);
        and(bh, 7);
        mov(al, byte_ptr(bda::KEYBOARD_LEDS));
        xor(al, bh);
        test(al, 7);
        jz(".same");
        and(byte_ptr(bda::KEYBOARD_LEDS), 0xF8);
        or(byte_ptr(bda::KEYBOARD_LEDS), bh);
        mov(al, 0xED);
        call("keyboard.command");
        jc(".same");
        mov(al, bh);
        call("keyboard.command");
        label(".same");
        ret();

        // Sends AL to the keyboard; CF set unless it answers with FAh. Changes AX, CX.
        label("keyboard.command");
        mov(ah, al);
        call("mouse.ready");
        mov(al, ah);
        out(0x60, al);
        call("mouse.answer");
        jc(".done");
        sub(al, 0xFA);
        jz(".done");
        stc();
        label(".done");
        ret();
    }
}

fn services(rom: &mut Rom) {
    asm! { rom;
        label("int1b");
        iret();
        vector(0x1B, "int1b");

        service("int16");
        dispatch_ah(&[
            (0x00, ".read"),
            (0x10, ".read"),
            (0x01, ".peek"),
            (0x11, ".peek"),
            (0x02, ".shift"),
            (0x03, ".typematic"),
            (0x05, ".store"),
            (0x09, ".functions"),
            (0x0A, ".identifier"),
            (0x12, ".extended"),
            (0x6F, ".vendor"),
            (0x92, ".capability"),
        ]);
        jmp("service.done");
        vector(0x16, "int16");

        label(".vendor");
        cmp(al, 0x08);
        jne("service.done");
        mov(frame::ah(), 2);
        jmp("service.done");
        label(".capability");
        mov(frame::ah(), 0x80);
        jmp("service.done");

        label(".read");
        mov(bl, ah);
        label(".wait");
        cli();
        call("keyboard.next");
        jnz(".got");
        sti();
        hlt();
        jmp(".wait");
        label(".got");
        mov(word_ptr(bda::KEYBOARD_HEAD), si);
        mov(frame::ax(), ax);
        jmp("service.done");
        label(".peek");
        // A program that polls lets interrupts through here.
        sti();
        nop();
        cli();
        mov(bl, ah);
        call("keyboard.next");
        jz("service.zero");
        mov(frame::ax(), ax);
        jmp("service.nonzero");

        label(".shift");
        mov(al, byte_ptr(bda::KEYBOARD_FLAGS));
        mov(frame::al(), al);
        jmp("service.done");
        label(".extended");
        mov(al, byte_ptr(bda::KEYBOARD_FLAGS));
        mov(ah, byte_ptr(bda::KEYBOARD_FLAGS_2));
        mov(cl, ah);
        and(ah, 0x73);
        and(cl, 4);
        shl(cl, 5);
        or(ah, cl);
        mov(cl, byte_ptr(bda::KEYBOARD_MODE));
        and(cl, 0x0C);
        or(ah, cl);
        mov(frame::ax(), ax);
        jmp("service.done");
        label(".typematic");
        cmp(al, 5);
        jne("service.done");
        // Delay in bits 6-5, rate in bits 4-0, as the keyboard's F3h takes them.
        shl(bh, 5);
        and(bh, 0x60);
        and(bl, 0x1F);
        or(bh, bl);
        cli();
        mov(al, 0xF3);
        call("keyboard.command");
        jc("service.done");
        mov(al, bh);
        call("keyboard.command");
        jmp("service.done");
        label(".store");
        cli();
        mov(ax, cx);
        call("keyboard.store");
        setc(frame::al());
        jmp("service.done");
        label(".functions");
        mov(frame::al(), 0x30);
        jmp("service.done");
        label(".identifier");
        mov(frame::bx(), 0x41AB);
        jmp("service.done");

        // The next key for function BL in AX, SI = the buffer's head behind it; ZF set if there is none. Keys that functions 00
        // and 01 do not know are dropped.
        label("keyboard.next");
        mov(si, word_ptr(bda::KEYBOARD_HEAD));
        cmp(si, word_ptr(bda::KEYBOARD_TAIL));
        je(".none");
        mov(ax, word_ptr(si));
        call("keyboard.advance");
        test(bl, 0x10);
        jnz(".have");
        cmp(ah, 0xE0);
        je(".pad");
        cmp(ah, 0x84);
        ja(".drop");
        cmp(al, 0xE0);
        jne(".have");
        test(ah, ah);
        jz(".have");
        mov(al, 0);
        label(".have");
        test(sp, sp);
        label(".none");
        ret();
        label(".drop");
        mov(word_ptr(bda::KEYBOARD_HEAD), si);
        jmp("keyboard.next");
        label(".pad");
        mov(ah, 0x35);
        cmp(al, u32::from(b'/'));
        je(".have");
        mov(ah, 0x1C);
        jmp(".have");
    }
}

fn setup(rom: &mut Rom) {
    asm! { rom;
        // POST: 8042 and keyboard.
        label("keyboard.setup");
        push(i32::from(BDA_SEGMENT));
        pop(ds);
        mov(byte_ptr(bda::KEYBOARD_MODE), ENHANCED);
        // What has been typed before.
        mov(cx, 32);
        label(".drain");
        in_byte(0x64);
        test(al, 1);
        jz(".empty");
        in_byte(0x60);
        loop_(".drain");
        label(".empty");
        // Self-test, then command byte: translation, system flag, keyboard interrupt; the mouse is off.
        mov(al, 0xAA);
        call("mouse.controller");
        call("mouse.answer");
        jc(".done");
        mov(al, 0x60);
        call("mouse.controller");
        call("mouse.ready");
        mov(al, 0x64);
        out(0x60, al);
        mov(al, 0xAE);
        call("mouse.controller");
        mov(al, 0xFF);
        call("keyboard.command");
        jc(".interrupt");
        call("mouse.answer");
        label(".interrupt");
        mov(al, 0x60);
        call("mouse.controller");
        call("mouse.ready");
        mov(al, 0x65);
        out(0x60, al);
        call("mouse.ready");
        in_byte(0x21);
        and(al, 0xFD);
        out(0x21, al);
        label(".done");
        retf();
    }
}
