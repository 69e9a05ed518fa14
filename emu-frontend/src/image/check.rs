//! What a check of an image has found.

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
