//! The software TLB: direct-mapped, in banks, one compare for a hit.
//!
//! ```text
//!  linear address   63 ........ 24 23 ........ 12 11 ....... 0
//!                                  index in bank   offset
//!  entry            read tag | write tag | addend | physical page
//! ```
//! A tag is the linear page address, or has its lowest bit set and never matches. The compare is
//! `(address + size - 1) & !4095 == tag` on the entry of `address`, so that an access that crosses into the next page
//! misses too. An entry's write tag matches only if a plain store needs no further work: the page is writable, already
//! dirty, RAM, and free of decoded code.
//!
//! Banks: one that is never filled, for the times when every access must take the slow path (data breakpoints, alignment
//! checks); one for supervisor accesses; and for each of [`CONTEXTS`] address spaces one for user accesses and one for
//! supervisor accesses with EFLAGS.AC set (SMAP suspended), which reach user pages. A switch between known address spaces
//! thus drops only what the supervisor bank holds of the old one besides global pages ([`super::context`]).

/// log2 of the entries in a bank. A quarter as many do not hold what a kernel touches for each page of a file; twice as many gain nothing.
pub const BITS: u32 = 12;
/// Address spaces whose translations are kept. Linux uses six PCIDs at a time.
pub const CONTEXTS: usize = 7;
const SIZE: usize = 1 << BITS;
const BANKS: usize = 2 + 2 * CONTEXTS;
const WORDS: usize = SIZE / 64;
/// A tag that matches no page.
pub const NO_TAG: u64 = 1;

/// The privilege under which translations are cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bank {
    /// Never filled.
    Slow,
    /// CPL 0 to 2; with SMAP, user pages are out of reach.
    Supervisor,
    /// CPL 3.
    User,
    /// CPL 0 to 2 with EFLAGS.AC set.
    SupervisorAc,
}

impl Bank {
    /// Index of the bank's first entry.
    const fn start(self, context: usize) -> usize {
        SIZE * match self {
            Bank::Slow => 0,
            Bank::Supervisor => 1,
            Bank::User => 2 + 2 * context,
            Bank::SupervisorAc => 3 + 2 * context,
        }
    }
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

impl Entry {
    /// The linear address of the page.
    fn page(&self) -> u64 {
        if self.read_tag == NO_TAG { self.write_tag } else { self.read_tag }
    }
}

/// The TLB of one vCPU.
pub struct Tlb {
    pub(crate) entries: Box<[Entry; SIZE * BANKS]>,
    /// Which entries may be filled, a bit each, so that flushes touch only those.
    used: [u64; WORDS * BANKS],
    /// Which entries of the supervisor bank may be filled with translations that are not global.
    private: [u64; WORDS],
    /// Where the current bank starts.
    pub(crate) start: usize,
    bank: Bank,
    context: usize,
    /// Bit `n % 4096` is set if a fragment of a large page in the 2 MiB region `n` may be cached: INVLPG must then look
    /// beyond one entry.
    large: [u64; 64],
    /// Likewise for 1 GiB pages and regions.
    huge: u64,
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
            used: [0; WORDS * BANKS],
            private: [0; WORDS],
            start: Bank::Supervisor.start(0),
            bank: Bank::Supervisor,
            context: 0,
            large: [0; 64],
            huge: 0,
        }
    }
}

fn slot(linear: u64) -> usize {
    (linear >> 12) as usize & (SIZE - 1)
}

impl Tlb {
    /// Chooses the bank that lookups use from now on.
    pub fn select(&mut self, bank: Bank) {
        self.bank = bank;
        self.start = bank.start(self.context);
    }

    /// Chooses the address space, 0 to [`CONTEXTS`] - 1, whose banks lookups use from now on.
    pub fn set_context(&mut self, context: usize) {
        self.context = context % CONTEXTS;
        self.select(self.bank);
    }

    #[inline(always)]
    fn index(&self, linear: u64) -> usize {
        ((linear >> 12) as usize & (SIZE - 1)) | (self.start & (SIZE * (BANKS - 1)))
    }

    /// The only entry of the current bank in which `linear` can be.
    #[inline(always)]
    pub fn entry(&self, linear: u64) -> &Entry {
        &self.entries[self.index(linear)]
    }

    /// The only entry of the supervisor bank in which `linear` can be: for implicit accesses to system structures.
    pub fn system_entry(&self, linear: u64) -> &Entry {
        &self.entries[slot(linear) + Bank::Supervisor.start(0)]
    }

    /// Fills the entry of `linear` in the current bank, unless that is the one that stays empty, or in the supervisor
    /// bank for an implicit access.
    pub fn fill(&mut self, linear: u64, entry: Entry, page: PageSize, implicit: bool) {
        let bank = if implicit { Bank::Supervisor } else { self.bank };
        if bank == Bank::Slow {
            return;
        }
        let slot = slot(linear);
        if bank == Bank::Supervisor {
            let bit = 1 << (slot % 64);
            let word = &mut self.private[slot / 64];
            *word = if entry.offset_flags & GLOBAL != 0 { *word & !bit } else { *word | bit };
        }
        let index = bank.start(self.context) + slot;
        self.used[index / 64] |= 1 << (index % 64);
        if page != PageSize::Small {
            let region = linear >> 21;
            self.large[(region / 64 % 64) as usize] |= 1 << (region % 64);
            if page == PageSize::Huge {
                self.huge |= 1 << (linear >> 30 & 63);
            }
        }
        self.entries[index] = entry;
    }

    /// Empties the used entries among `words` (words of `used`) for which `drop` holds.
    fn flush_where(&mut self, words: std::ops::Range<usize>, drop: impl Fn(&Entry) -> bool) {
        for word in words {
            let mut bits = self.used[word];
            while bits != 0 {
                let bit = bits.trailing_zeros();
                bits &= bits - 1;
                let entry = &mut self.entries[word * 64 + bit as usize];
                if drop(entry) {
                    *entry = EMPTY;
                    self.used[word] &= !(1 << bit);
                }
            }
        }
    }

    /// Drops everything; with `keep_global`, global translations stay.
    pub fn flush(&mut self, keep_global: bool) {
        if keep_global {
            self.flush_where(0..WORDS * BANKS, |entry| entry.offset_flags & GLOBAL == 0);
        } else {
            self.flush_where(0..WORDS * BANKS, |_| true);
            self.large = [0; 64];
            self.huge = 0;
        }
        self.private = [0; WORDS];
    }

    /// Drops what the banks of `context` hold, besides global translations.
    pub fn flush_context(&mut self, context: usize) {
        let first = Bank::User.start(context % CONTEXTS) / 64;
        self.flush_where(first..first + 2 * WORDS, |entry| entry.offset_flags & GLOBAL == 0);
    }

    /// Drops what the supervisor bank holds, besides global translations.
    pub fn flush_private(&mut self) {
        let first = Bank::Supervisor.start(0);
        for word in 0..WORDS {
            let mut bits = std::mem::take(&mut self.private[word]);
            while bits != 0 {
                let slot = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                self.entries[first + slot] = EMPTY;
            }
        }
    }

    /// Drops the translation of the page of `linear`, whatever its size, in all banks.
    pub fn flush_page(&mut self, linear: u64) {
        let region = linear >> 21;
        let huge = self.huge >> (linear >> 30 & 63) & 1 != 0;
        let large = self.large[(region / 64 % 64) as usize] >> (region % 64) & 1 != 0;
        if huge || large {
            // 4 MiB is the larger kind of large page.
            let shift = if huge { 30 } else { 22 };
            self.flush_where(0..WORDS * BANKS, |entry| entry.page() >> shift == linear >> shift);
            return;
        }
        for bank in 0..BANKS {
            self.entries[slot(linear) + bank * SIZE] = EMPTY;
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
