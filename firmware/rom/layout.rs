//! Memory below 1 MiB: BIOS data area, extended BIOS data area, scratch memory of POST.
//!
//! ```text
//!  00000 interrupt vectors     00400 BDA     00500 scratch (POST), then the boot sector's own
//!  07000 stack of POST and of the boot sector's start (SS:SP = 0000:7000, growing down)
//!  07C00 boot sector           9F400 EBDA (3 KiB)
//!  C0000 option ROMs           E0000 this BIOS
//! ```
//! Offsets follow IBM's PC/AT and PS/2 technical references (BIOS data area); what is ours is marked.

/// Segment of the BIOS data area.
pub const BDA_SEGMENT: u16 = 0x40;
/// Segment of the extended BIOS data area, with 640 KiB of base memory.
pub const EBDA_SEGMENT: u16 = 0x9F40;
/// Size of the EBDA in KiB.
pub const EBDA_KIB: u16 = 3;
/// Base memory below the EBDA in KiB.
pub const BASE_MEMORY_KIB: u16 = 640 - EBDA_KIB;
/// Where the area of the system BIOS begins, which no memory map calls RAM (physical).
pub const BIOS_AREA: u32 = 0xE_0000;
/// Top of the stack in segment 0 while the BIOS itself runs.
pub const STACK_TOP: u16 = 0x7000;

/// Fields of the BIOS data area: offsets in [`BDA_SEGMENT`].
#[allow(dead_code)]
pub mod bda {
    /// Ports of COM1 to COM4 (words).
    pub const COM_PORTS: i32 = 0x00;
    /// Ports of LPT1 to LPT3 (words).
    pub const LPT_PORTS: i32 = 0x08;
    /// Segment of the EBDA (word).
    pub const EBDA: i32 = 0x0E;
    /// What INT 11h returns (word).
    pub const EQUIPMENT: i32 = 0x10;
    /// Base memory in KiB (word).
    pub const MEMORY_KIB: i32 = 0x13;
    /// Shift states (two bytes).
    pub const KEYBOARD_FLAGS: i32 = 0x17;
    pub const KEYBOARD_FLAGS_2: i32 = 0x18;
    /// Alt and keypad digits (byte).
    pub const ALT_KEYPAD: i32 = 0x19;
    /// Offsets of the next key to read, to write (words), and the buffer of 16 words.
    pub const KEYBOARD_HEAD: i32 = 0x1A;
    pub const KEYBOARD_TAIL: i32 = 0x1C;
    pub const KEYBOARD_BUFFER: i32 = 0x1E;
    /// Diskette: recalibrated drives, motors, motor time-out, last status, controller status (7 bytes).
    pub const FLOPPY_RECALIBRATED: i32 = 0x3E;
    pub const FLOPPY_MOTORS: i32 = 0x3F;
    pub const FLOPPY_TIMEOUT: i32 = 0x40;
    pub const FLOPPY_STATUS: i32 = 0x41;
    pub const FLOPPY_CONTROLLER_STATUS: i32 = 0x42;
    /// Video: mode, columns, page size, page start, cursors (8 words), cursor shape, page, CRTC port, mode and palette registers.
    pub const VIDEO_MODE: i32 = 0x49;
    pub const VIDEO_COLUMNS: i32 = 0x4A;
    pub const VIDEO_PAGE_SIZE: i32 = 0x4C;
    pub const VIDEO_PAGE_START: i32 = 0x4E;
    pub const VIDEO_CURSORS: i32 = 0x50;
    pub const VIDEO_CURSOR_SHAPE: i32 = 0x60;
    pub const VIDEO_PAGE: i32 = 0x62;
    pub const VIDEO_CRTC: i32 = 0x63;
    pub const VIDEO_MODE_REGISTER: i32 = 0x65;
    pub const VIDEO_PALETTE_REGISTER: i32 = 0x66;
    /// Where to go on after a reset that leaves protected mode (far pointer).
    pub const RESUME: i32 = 0x67;
    /// Timer ticks since midnight (dword) and whether midnight passed (byte).
    pub const TICKS: i32 = 0x6C;
    pub const MIDNIGHT: i32 = 0x70;
    /// Ctrl-Break was pressed: bit 7.
    pub const BREAK: i32 = 0x71;
    /// 1234h: warm boot (word).
    pub const RESET_FLAG: i32 = 0x72;
    /// Hard disk: last status, number of drives.
    pub const DISK_STATUS: i32 = 0x74;
    pub const DISK_COUNT: i32 = 0x75;
    /// Time-outs of LPT1 to LPT4, COM1 to COM4 (bytes).
    pub const LPT_TIMEOUTS: i32 = 0x78;
    pub const COM_TIMEOUTS: i32 = 0x7C;
    /// Start and end of the keyboard buffer (words).
    pub const KEYBOARD_START: i32 = 0x80;
    pub const KEYBOARD_END: i32 = 0x82;
    /// Video: rows minus one, bytes per character, EGA/VGA control, switches, flags, display combination index.
    pub const VIDEO_ROWS: i32 = 0x84;
    pub const VIDEO_CHARACTER_HEIGHT: i32 = 0x85;
    pub const VIDEO_CONTROL: i32 = 0x87;
    pub const VIDEO_SWITCHES: i32 = 0x88;
    pub const VIDEO_FLAGS: i32 = 0x89;
    pub const VIDEO_COMBINATION: i32 = 0x8A;
    /// Diskette: last data rate, media states of the drives, current tracks.
    pub const FLOPPY_RATE: i32 = 0x8B;
    pub const FLOPPY_INFO: i32 = 0x8F;
    pub const FLOPPY_MEDIA: i32 = 0x90;
    pub const FLOPPY_TRACKS: i32 = 0x94;
    /// A disk interrupt came (byte).
    pub const DISK_INTERRUPT: i32 = 0x8E;
    /// Enhanced keyboard flags (two bytes).
    pub const KEYBOARD_MODE: i32 = 0x96;
    pub const KEYBOARD_LEDS: i32 = 0x97;
    /// INT 15h, AH=83h/86h: user's flag (far pointer), microseconds left (dword), active (byte).
    pub const WAIT_FLAG: i32 = 0x98;
    pub const WAIT_COUNT: i32 = 0x9C;
    pub const WAIT_ACTIVE: i32 = 0xA0;
    /// Video parameter tables of the VGA BIOS (far pointer).
    pub const VIDEO_SAVE_POINTER: i32 = 0xA8;
}

/// Fields of the EBDA: offsets in the segment at [`bda::EBDA`]. Owner of each range in brackets.
#[allow(dead_code)]
pub mod ebda {
    /// Size in KiB (byte).
    pub const SIZE: i32 = 0x00;
    /// \[INT 15h\] Pointing device: handler (far pointer), two flag bytes, packet (8 bytes), ours.
    pub const MOUSE_HANDLER: i32 = 0x22;
    pub const MOUSE_FLAGS: i32 = 0x26;
    pub const MOUSE_PACKET: i32 = 0x28;
    /// \[INT 13h\] Parameter tables of hard disks 80h and 81h (16 bytes each): vectors 41h and 46h.
    pub const DISK_TABLES: i32 = 0x3D;
    /// \[INT 09h, 16h, 70h, 74h\] 256 bytes.
    pub const INPUT: i32 = 0x100;
    /// \[POST, INT 15h, INT 19h\] 256 bytes.
    pub const SYSTEM: i32 = 0x200;
    /// \[ROM monitor\] 256 bytes.
    pub const MONITOR: i32 = 0x300;
    /// \[INT 13h\] 2 KiB: drives, the request in progress, El Torito (`services/disk/tables.rs`).
    pub const DISK: i32 = 0x400;
}

/// What POST and INT 19h keep in [`ebda::SYSTEM`].
pub mod system {
    use super::ebda::SYSTEM;
    /// The boot order: entries, and the next one to try (bytes).
    pub const BOOT_COUNT: i32 = SYSTEM;
    pub const BOOT_NEXT: i32 = SYSTEM + 1;
    /// Entries of two bytes: kind and number.
    pub const BOOT: i32 = SYSTEM + 2;
    pub const BOOTS: i32 = 24;
    /// What the user has chosen to boot: an entry like those above; 0 for nothing.
    pub const BOOT_CHOICE: i32 = SYSTEM + 0x3E;
    /// Boot entry vectors of option ROMs: how many, and for each a far pointer and where the ROM comes from: `BEV_FILE` and an index into
    /// fw_cfg's directory, a PCI function, or `BEV_FIXED` for a ROM that was there.
    pub const BEV_COUNT: i32 = SYSTEM + 0x40;
    pub const BEV: i32 = SYSTEM + 0x44;
    pub const BEV_SOURCE: i32 = BEV + 4;
    pub const BEVS: i32 = 8;
    pub const BEV_FILE: i32 = 0x8000;
    pub const BEV_FIXED: i32 = 0xFFFF;
    /// How long the boot menu is offered, and when to restart with nothing to boot (dwords): milliseconds, FFFFFFFFh for never.
    pub const MENU_WAIT: i32 = SYSTEM + 0x90;
    pub const FAIL_WAIT: i32 = SYSTEM + 0x94;
    /// When such a wait ends: ticks since midnight (dword), and how many are waited for.
    pub const WAIT_FROM: i32 = SYSTEM + 0x98;
    pub const WAIT_TICKS: i32 = SYSTEM + 0x9C;
}

/// What the ROM monitor keeps in [`ebda::MONITOR`].
pub mod monitor {
    use super::ebda::MONITOR;
    /// The line typed, zero-terminated, and its room.
    pub const LINE: i32 = MONITOR;
    pub const LINE_SIZE: i32 = 76;
    /// A memory map's entry; the processor's names (49 bytes).
    pub const BUFFER: i32 = MONITOR + 0x50;
    /// Where `dump` goes on (dword).
    pub const NEXT: i32 = MONITOR + 0x90;
    /// Attribute of what is written (byte).
    pub const COLOUR: i32 = MONITOR + 0x94;
    /// Whether the banner has listed a drive (byte).
    pub const INDENT: i32 = MONITOR + 0x95;
    /// \[Boot menu\] How many lines it has (byte), and what each boots, as in `system::BOOT`.
    pub const MENU_COUNT: i32 = MONITOR + 0x96;
    pub const MENU: i32 = MONITOR;
}
