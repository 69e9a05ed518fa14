//! The software TLB: direct-mapped, in banks, one compare for a hit.
//!
//! ```text
//!  linear address   63 ........ 22 21 ........ 12 11 ....... 0
//!                                  index in bank   offset
//!  entry            read tag | write tag | addend | physical page
//! ```
//! A tag is the linear page address, or has its lowest bit set and never matches. The compare is
//! `(address + size - 1) & !4095 == tag` on the entry of `address`, so that an access that crosses into the next page
//! misses too. An entry's write tag matches only if a plain store needs no further work: the page is writable, already
//! dirty, RAM, and free of decoded code.
//!
//! Banks: user, supervisor, supervisor with EFLAGS.AC set (SMAP suspended), and one that is never filled, for the times
//! when every access must take the slow path (data breakpoints, alignment checks).

/// log2 of the entries in a bank.
pub const BITS: u32 = 10;
const SIZE: usize = 1 << BITS;
const BANKS: usize = 4;
/// A tag that matches no page.
pub const NO_TAG: u64 = 1;

/// The privilege under which translations are cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Bank {
    /// CPL 3.
    User,
    /// CPL 0 to 2; with SMAP, user pages are out of reach.
    Supervisor,
    /// CPL 0 to 2 with EFLAGS.AC set.
    SupervisorAc,
    /// Never filled.
    Slow,
}

/// One translation.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub struct Entry {
    /// Matches if reads may go straight to memory.
    pub read_tag: u64,
    /// Matches if writes may go straight to memory.
    pub write_tag: u64,
    /// Added to the linear address: the host address.
    pub addend: u64,
    /// Offset in [`crate::mem::ram::Ram`] of the page, or'ed with [`GLOBAL`] and [`CODE`].
    pub offset_flags: u64,
}

/// Bit of [`Entry::offset_flags`]: the translation is global.
pub const GLOBAL: u64 = 1;
/// Bit of [`Entry::offset_flags`]: stores are allowed, but must look for decoded code.
pub const CODE: u64 = 2;

/// An entry that matches nothing.
pub const EMPTY: Entry = Entry { read_tag: NO_TAG, write_tag: NO_TAG, addend: 0, offset_flags: 0 };

/// The TLB of one vCPU.
pub struct Tlb {
    entries: Box<[Entry; SIZE * BANKS]>,
    /// Which entries may be filled, a bit each, so that flushes touch only those.
    used: [u64; SIZE * BANKS / 64],
    bank: usize,
    /// Bit `n % 256` is set if a fragment of a large page in the 2 MiB region `n` may be cached: INVLPG must then look
    /// beyond one entry.
    large: [u64; 4],
    /// A fragment of a 1 GiB page may be cached.
    huge: bool,
}

/// The size of the page that a translation comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSize {
    /// 4 KiB, or no paging at all.
    Small,
    /// 2 MiB or 4 MiB.
    Large,
    /// 1 GiB.
    Huge,
}

impl Default for Tlb {
    fn default() -> Tlb {
        let entries: Box<[Entry]> = vec![EMPTY; SIZE * BANKS].into();
        let entries = entries.try_into().unwrap_or_else(|_| unreachable!("the length is SIZE * BANKS"));
        Tlb {
            entries,
            used: [0; SIZE * BANKS / 64],
            bank: Bank::Supervisor as usize * SIZE,
            large: [0; 4],
            huge: false,
        }
    }
}

impl Tlb {
    /// Chooses the bank that lookups use from now on.
    pub fn select(&mut self, bank: Bank) {
        self.bank = bank as usize * SIZE;
    }

    #[inline(always)]
    fn index(&self, linear: u64) -> usize {
        ((linear >> 12) as usize & (SIZE - 1)) | (self.bank & (SIZE * (BANKS - 1)))
    }

    /// The only entry of the current bank in which `linear` can be.
    #[inline(always)]
    pub fn entry(&self, linear: u64) -> &Entry {
        &self.entries[self.index(linear)]
    }

    /// The only entry of the supervisor bank in which `linear` can be: for implicit accesses to system structures.
    pub fn system_entry(&self, linear: u64) -> &Entry {
        &self.entries[((linear >> 12) as usize & (SIZE - 1)) | (Bank::Supervisor as usize * SIZE)]
    }

    /// Fills the entry of `linear` in the current bank, unless that is the one that stays empty, or in the supervisor
    /// bank for an implicit access.
    pub fn fill(&mut self, linear: u64, entry: Entry, page: PageSize, implicit: bool) {
        let index = if implicit {
            ((linear >> 12) as usize & (SIZE - 1)) | (Bank::Supervisor as usize * SIZE)
        } else if self.bank == Bank::Slow as usize * SIZE {
            return;
        } else {
            self.index(linear)
        };
        self.used[index / 64] |= 1 << (index % 64);
        if page != PageSize::Small {
            let region = linear >> 21;
            self.large[(region / 64 % 4) as usize] |= 1 << (region % 64);
            self.huge |= page == PageSize::Huge;
        }
        self.entries[index] = entry;
    }

    /// Drops everything; with `keep_global`, global translations stay.
    pub fn flush(&mut self, keep_global: bool) {
        for (word, used) in self.used.iter_mut().enumerate() {
            let mut bits = *used;
            while bits != 0 {
                let bit = bits.trailing_zeros();
                bits &= bits - 1;
                let entry = &mut self.entries[word * 64 + bit as usize];
                if !(keep_global && entry.offset_flags & GLOBAL != 0) {
                    *entry = EMPTY;
                    *used &= !(1 << bit);
                }
            }
        }
    }

    /// Drops the translation of the page of `linear` in all banks.
    pub fn flush_page(&mut self, linear: u64) {
        let region = linear >> 21;
        if self.huge || self.large[(region / 64 % 4) as usize] >> (region % 64) & 1 != 0 {
            self.large = [0; 4];
            self.huge = false;
            self.flush(false);
            return;
        }
        for bank in 0..BANKS {
            let index = ((linear >> 12) as usize & (SIZE - 1)) + bank * SIZE;
            self.entries[index] = EMPTY;
        }
    }

    /// Takes away direct writes to the physical page at `offset`, which holds decoded code from now on.
    pub fn protect(&mut self, offset: usize) {
        let page = offset as u64 & !0xfff;
        for (word, used) in self.used.iter().enumerate() {
            let mut bits = *used;
            while bits != 0 {
                let bit = bits.trailing_zeros();
                bits &= bits - 1;
                let entry = &mut self.entries[word * 64 + bit as usize];
                if entry.offset_flags & !0xfff == page && entry.write_tag != NO_TAG {
                    entry.write_tag = NO_TAG;
                    entry.offset_flags |= CODE;
                }
            }
        }
    }
}
