//! The assembler layer: ROM sections, symbols, and the words in which the sources are written.
//!
//! A [`Rom`] is written by calling each source's `emit(rom)` inside a section, again and again until every symbol has
//! come to rest: the addresses that a pass sees are those that the pass before it laid down. So a symbol can be used as
//! a number before it is defined (`rom.offset("table")`), in another section as well, while branches to symbols of the
//! same section are left to the encoder, which picks the shortest form.
//!
//! Symbols are plain names. One that starts with a dot is local to the last one that does not: `.loop` after `int12` is
//! `int12.loop`.

/// Assembles the instructions and pseudo-instructions in its second argument, in order, into the [`Rom`] that is its first.
/// Each is a method of [`Rom`] or of iced-x86's `CodeAssembler`, written like a statement: `mov(ax, 5);`, `rep().movsb();`.
/// Operands are evaluated before the instruction is emitted, so they may use the `Rom` themselves.
macro_rules! asm {
    ($rom:expr; $($op:ident($($operand:expr),* $(,)?) $(.$prefixed:ident())?;)*) => {
        $( asm!(@one $rom, $op $(.$prefixed)?, $($operand),*); )*
    };
    (@one $rom:expr, $prefix:ident.$op:ident,) => {
        if let Err(error) = $rom.$prefix().$op() {
            panic!("{}: {}().{}(): {error}", file!(), stringify!($prefix), stringify!($op));
        }
    };
    (@one $rom:expr, $op:ident,) => {
        if let Err(error) = $rom.$op() {
            panic!("{}: {}(): {error}", file!(), stringify!($op));
        }
    };
    (@one $rom:expr, $op:ident, $a:expr) => {{
        let a = $a;
        if let Err(error) = $rom.$op(a) {
            panic!("{}: {}({}): {error}", file!(), stringify!($op), stringify!($a));
        }
    }};
    (@one $rom:expr, $op:ident, $a:expr, $b:expr) => {{
        let (a, b) = ($a, $b);
        if let Err(error) = $rom.$op(a, b) {
            panic!("{}: {}({}, {}): {error}", file!(), stringify!($op), stringify!($a), stringify!($b));
        }
    }};
    (@one $rom:expr, $op:ident, $a:expr, $b:expr, $c:expr) => {{
        let (a, b, c) = ($a, $b, $c);
        if let Err(error) = $rom.$op(a, b, c) {
            panic!("{}: {}({}, {}, {}): {error}", file!(), stringify!($op), stringify!($a), stringify!($b), stringify!($c));
        }
    }};
}

// The vocabulary is wider than what today's sources say.
#[allow(dead_code)]
mod flow;
#[allow(dead_code)]
mod service;

pub use iced_x86::code_asm::*;
#[allow(unused_imports)]
pub use service::frame;

use iced_x86::{BlockEncoderOptions, IcedError};
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

/// What an instruction or pseudo-instruction returns.
pub type Emitted = Result<(), IcedError>;

/// Passes until symbols must have come to rest.
const MAX_PASSES: usize = 30;

/// A piece of an image with its own kind of code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// 16-bit run-time code at F000:0000. Interrupt services live here, where PC software expects the BIOS.
    F000,
    /// 16-bit code at E000:0000: POST, the boot menu, the ROM monitor.
    E000,
    /// 32-bit flat code at physical E8000 for POST, entered through `flat.call`.
    Flat,
    /// 16-bit code of an option ROM, an image of its own: at C000:0000 the VGA BIOS, anywhere what looks at CS.
    C000,
}

impl Section {
    /// Operand size of the code.
    pub fn bits(self) -> u32 {
        if self == Section::Flat { 32 } else { 16 }
    }

    /// The segment that CS holds: 16-bit code counts its addresses from it.
    pub fn segment(self) -> u16 {
        match self {
            Section::F000 => 0xF000,
            Section::E000 => 0xE000,
            Section::Flat => 0,
            Section::C000 => 0xC000,
        }
    }

    /// The address, in the section's own terms, of its first byte.
    fn start(self) -> u32 {
        if self == Section::Flat { 0xE8000 } else { 0 }
    }

    /// Bytes that code and data may fill. The last 8 KiB of F000 are for entry points at fixed addresses.
    fn room(self) -> usize {
        match self {
            Section::F000 => 0xE000,
            Section::E000 | Section::Flat => 0x8000,
            Section::C000 => 0xFE00,
        }
    }
}

/// Where a symbol is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Symbol {
    section: Section,
    /// In the section's own terms.
    address: u32,
}

type Symbols = BTreeMap<String, Symbol>;

/// A finished image.
pub struct Image {
    /// What goes into the ROM.
    pub bytes: Vec<u8>,
    /// One symbol to a line: `segment:offset name`, sorted by address.
    pub map: String,
}

/// The code of one section as far as it has been written in this pass.
struct Part {
    section: Section,
    code: CodeAssembler,
    labels: BTreeMap<String, CodeLabel>,
    scope: String,
    strings: Vec<(String, Vec<u8>)>,
    fresh: usize,
}

/// An image that is being assembled.
pub struct Rom {
    known: Symbols,
    missing: Vec<String>,
    parts: Vec<Part>,
    current: usize,
    fixed: Vec<(u16, Vec<u8>)>,
    /// Interrupts and their handlers.
    vectors: Vec<(u8, String)>,
}

impl Rom {
    /// Assembles an image: `emit` writes all of it, `place` lays the sections' bytes out.
    ///
    /// # Panics
    /// The source is wrong: a symbol is missing or defined twice, an instruction cannot be encoded, a section is too long.
    pub fn assemble(
        emit: impl Fn(&mut Rom),
        place: impl Fn(&[(Section, Vec<u8>)], &[(u16, Vec<u8>)]) -> Vec<u8>,
    ) -> Image {
        let mut known = BTreeMap::new();
        for _ in 0..MAX_PASSES {
            let mut rom = Rom {
                known,
                missing: Vec::new(),
                parts: Vec::new(),
                current: 0,
                fixed: Vec::new(),
                vectors: Vec::new(),
            };
            emit(&mut rom);
            let before = std::mem::take(&mut rom.known);
            let (missing, fixed) = (std::mem::take(&mut rom.missing), std::mem::take(&mut rom.fixed));
            let (sections, symbols) = rom.finish();
            if symbols == before {
                assert!(missing.is_empty(), "symbols that nothing defines: {}", missing.join(", "));
                return Image { bytes: place(&sections, &fixed), map: map(&symbols) };
            }
            known = symbols;
        }
        panic!("symbols move for ever");
    }

    /// Lets `emit` write into `section`, after what is there already.
    pub fn section(&mut self, section: Section, emit: impl FnOnce(&mut Rom)) {
        let outer = self.current;
        self.current = self.parts.iter().position(|part| part.section == section).unwrap_or_else(|| {
            self.parts.push(Part::new(section));
            self.parts.len() - 1
        });
        emit(self);
        self.current = outer;
    }

    /// Puts bytes at F000:`offset`, which is E000 or above.
    pub fn fixed(&mut self, offset: u16, bytes: &[u8]) {
        self.fixed.push((offset, bytes.to_vec()));
    }

    /// Puts a near jump to a symbol of F000 at F000:`offset`, where old software calls a service directly.
    pub fn entry(&mut self, offset: u16, symbol: &str) {
        let [low, high] = self.offset(symbol).wrapping_sub(offset).wrapping_sub(3).to_le_bytes();
        self.fixed(offset, &[0xE9, low, high]);
    }

    /// Defines a symbol here.
    pub fn label(&mut self, name: &str) -> Emitted {
        let part = self.part();
        let full = part.full_name(name);
        if !name.starts_with('.') {
            part.scope = full.clone();
        }
        let mut label = part.code_label(&full);
        part.code.set_label(&mut label)?;
        part.labels.insert(full.clone(), label);
        // An instruction can have one label only, and an empty one lets another label follow.
        part.code.zero_bytes()
    }

    /// The symbol's address in its section's terms: an offset in its segment.
    pub fn offset(&mut self, name: &str) -> u16 {
        self.address(name) as u16
    }

    /// [`Rom::offset`] as the displacement of a memory operand.
    pub fn at(&mut self, name: &str) -> i32 {
        self.address(name) as i32
    }

    /// The segment of the symbol's section.
    pub fn segment(&mut self, name: &str) -> u16 {
        self.symbol(name).map_or(0, |symbol| symbol.section.segment())
    }

    /// The symbol's physical address.
    pub fn linear(&mut self, name: &str) -> u32 {
        let symbol = self.symbol(name);
        symbol.map_or(0, |symbol| u32::from(symbol.section.segment()) * 16 + symbol.address)
    }

    /// A zero-terminated string, kept at the end of the section: its offset.
    pub fn text(&mut self, text: &str) -> u16 {
        self.bytes([text.as_bytes(), &[0]].concat())
    }

    /// Constant bytes, kept at the end of the section, the same ones only once: their offset.
    pub fn bytes(&mut self, bytes: Vec<u8>) -> u16 {
        let part = self.part();
        let index = part.strings.iter().position(|(_, known)| *known == bytes).unwrap_or_else(|| {
            part.strings.push((format!("@{:?}.{}", part.section, part.strings.len()), bytes));
            part.strings.len() - 1
        });
        let name = part.strings[index].0.clone();
        self.offset(&name)
    }

    /// Fills up with zeros to a multiple of `unit`.
    pub fn align(&mut self, unit: u32) -> Emitted {
        let name = self.fresh();
        let address = self.known.get(&name).map_or(0, |symbol| symbol.address);
        self.label(&name)?;
        self.code().db(&vec![0; (address.next_multiple_of(unit) - address) as usize])
    }

    /// `count` zero bytes.
    #[allow(dead_code)]
    pub fn zeros(&mut self, count: usize) -> Emitted {
        self.code().db(&vec![0; count])
    }

    /// A zero-terminated string, here.
    #[allow(dead_code)]
    pub fn asciz(&mut self, text: &str) -> Emitted {
        self.code().db(&[text.as_bytes(), &[0]].concat())
    }

    /// A name for a symbol that nothing else uses.
    pub fn fresh(&mut self) -> String {
        let part = self.part();
        part.fresh += 1;
        format!("@{:?}:{}", part.section, part.fresh)
    }

    /// Operand size of the section's code: for what is written once and assembled for both.
    pub fn bits(&mut self) -> u32 {
        self.part().section.bits()
    }

    fn part(&mut self) -> &mut Part {
        &mut self.parts[self.current]
    }

    fn code(&mut self) -> &mut CodeAssembler {
        &mut self.part().code
    }

    fn branch_label(&mut self, name: &str) -> CodeLabel {
        let part = self.part();
        let full = part.full_name(name);
        part.code_label(&full)
    }

    fn symbol(&mut self, name: &str) -> Option<Symbol> {
        let full = self.part().full_name(name);
        let symbol = self.known.get(&full).copied();
        if symbol.is_none() {
            self.missing.push(full);
        }
        symbol
    }

    fn address(&mut self, name: &str) -> u32 {
        self.symbol(name).map_or(0, |symbol| symbol.address)
    }

    fn finish(self) -> (Vec<(Section, Vec<u8>)>, Symbols) {
        let mut symbols = BTreeMap::new();
        let mut sections = Vec::new();
        for part in self.parts {
            let section = part.section;
            let bytes = part.finish(&mut symbols);
            assert!(
                bytes.len() <= section.room(),
                "{section:?} has {} bytes, {} too many",
                bytes.len(),
                bytes.len() - section.room()
            );
            sections.push((section, bytes));
        }
        (sections, symbols)
    }
}

impl Deref for Rom {
    type Target = CodeAssembler;

    fn deref(&self) -> &CodeAssembler {
        &self.parts[self.current].code
    }
}

impl DerefMut for Rom {
    fn deref_mut(&mut self) -> &mut CodeAssembler {
        self.code()
    }
}

impl Part {
    fn new(section: Section) -> Part {
        let code = CodeAssembler::new(section.bits()).expect("16 and 32 are bitnesses");
        Part { section, code, labels: BTreeMap::new(), scope: String::new(), strings: Vec::new(), fresh: 0 }
    }

    fn full_name(&self, name: &str) -> String {
        if name.starts_with('.') { format!("{}{name}", self.scope) } else { name.to_owned() }
    }

    fn code_label(&mut self, full: &str) -> CodeLabel {
        *self.labels.entry(full.to_owned()).or_insert_with(|| self.code.create_label())
    }

    fn finish(mut self, symbols: &mut Symbols) -> Vec<u8> {
        let write = |part: &mut Part| -> Result<_, IcedError> {
            for (name, bytes) in std::mem::take(&mut part.strings) {
                let mut label = part.code_label(&name);
                part.code.set_label(&mut label)?;
                part.labels.insert(name, label);
                part.code.db(&bytes)?;
            }
            // Labels at the very end need an instruction, too.
            part.code.zero_bytes()?;
            part.code.assemble_options(part.section.start().into(), BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS)
        };
        let undefined = |part: &Part| -> Vec<String> {
            part.labels.keys().filter(|name| !part.strings.iter().any(|(known, _)| known == *name)).cloned().collect()
        };
        let names = undefined(&self);
        let result = write(&mut self).unwrap_or_else(|error| {
            panic!("{:?}: {error}; the symbols branched to are {}", self.section, names.join(", "));
        });
        for (name, label) in &self.labels {
            let address =
                result.label_ip(label).unwrap_or_else(|_| panic!("{:?}: nothing defines {name}", self.section));
            let symbol = Symbol { section: self.section, address: address as u32 };
            assert!(symbols.insert(name.clone(), symbol).is_none(), "{name} is defined in two sections");
        }
        result.inner.code_buffer
    }
}

fn map(symbols: &Symbols) -> String {
    let mut lines: Vec<_> = symbols
        .iter()
        .filter(|(name, _)| !name.starts_with('@'))
        .map(|(name, symbol)| format!("{:04X}:{:04X} {name}\n", symbol.section.segment(), symbol.address))
        .collect();
    lines.sort();
    lines.concat()
}
