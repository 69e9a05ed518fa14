//! What a check of an image has found.

/// Lines about problems at most: a damaged image may have more than anybody reads, and than memory holds.
const MOST_LINES: usize = 4096;

/// The counts that `qemu-img check` prints, and a line for each problem.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckResult {
    /// A line for each problem.
    pub problems: Vec<String>,
    /// Problems by which data may be lost.
    pub corruptions: u64,
    /// Clusters that are taken for nothing.
    pub leaks: u64,
    /// Things that could not be checked.
    pub errors: u64,
    /// Repaired.
    pub corruptions_fixed: u64,
    /// Repaired.
    pub leaks_fixed: u64,
    /// Of the corruptions: damaged refcount structures.
    pub refcount_errors: u64,
    /// Of the corruptions: wrong flags.
    pub copied_errors: u64,
    /// The end of what is used in the file, in bytes.
    pub image_end: u64,
    /// Clusters of the disk.
    pub total_clusters: u64,
    /// Those that are in the file.
    pub allocated_clusters: u64,
    /// Those that do not lie behind their predecessor.
    pub fragmented_clusters: u64,
    /// Those that are compressed.
    pub compressed_clusters: u64,
}

impl CheckResult {
    /// Adds a line about a problem, as long as there is room.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        match self.problems.len() {
            0..MOST_LINES => self.problems.push(line()),
            MOST_LINES => self.problems.push("... and more".into()),
            _ => {}
        }
    }
}
