//! Every case of `tests/insn/*.case`, by single step and in a block.

use emu_core::debug::case::Line;
use std::path::Path;

#[test]
fn every_case_comes_to_what_it_says() {
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
                    case.run().err()
                }
                Err(problem) => Some(problem),
            };
            failures.extend(problem.map(|p| format!("{}:{}: {line}\n    {p}\n", path.display(), n + 1)));
        }
    }
    assert!(failures.is_empty(), "{} of {count} cases fail:\n{}", failures.len(), failures.concat());
    assert!(count > 100, "only {count} cases");
}
