//! Every case of `tests/insn/*.case`: by single step, in a block, as the only instruction of a compiled region, and in the
//! midst of a compiled region of several blocks.

use emu_core::debug::case::{Around, Case, Line};
use emu_jit::Immediate;
use std::path::Path;

/// Has `run` run every case; tells how many there are.
fn every_case(run: impl Fn(&Case) -> Result<(), String>) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("insn");
    let mut failures = Vec::new();
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("tests/insn exists") {
        let path = entry.expect("tests/insn is readable").path();
        let text = std::fs::read_to_string(&path).expect("case files are text");
        let mut bits = 32;
        for (n, line) in text.lines().enumerate() {
            let problem = match Line::parse(line, bits) {
                Ok(Line::Blank) => None,
                Ok(Line::Bits(size)) => {
                    bits = size;
                    None
                }
                Ok(Line::Case(case)) => {
                    count += 1;
                    run(&case).err()
                }
                Err(problem) => Some(problem),
            };
            failures.extend(problem.map(|p| format!("{}:{}: {line}\n    {p}\n", path.display(), n + 1)));
        }
    }
    assert!(failures.is_empty(), "{} of {count} cases fail:\n{}", failures.len(), failures.concat());
    count
}

#[test]
fn every_case_comes_to_what_it_says() {
    let count = every_case(Case::run);
    assert!(count > 100, "only {count} cases");
}

#[test]
fn every_case_comes_to_what_it_says_in_a_region() {
    for around in [Around::Nothing, Around::Blocks] {
        every_case(|case| case.run_compiled(Box::new(Immediate::new(4)?), around));
    }
}
