//! What lives met.

/// How often the lives met what they were made for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lived {
    /// Events handed to requests.
    pub steps: u64,
    /// Writes by the client.
    pub writes: u64,
    /// Writes by the client while a writeback was under way.
    pub writes_meanwhile: u64,
    /// Direct writes.
    pub direct: u64,
    /// Direct writes that failed.
    pub direct_failed: u64,
    /// Writes that went through, with a pass that followed.
    pub through: u64,
    /// Times that something dirty was passed over.
    pub passed_over: u64,
    /// Write groups that ended.
    pub groups: u64,
    /// Writes that waited for an older group.
    pub older_first: u64,
    /// Blocks that were filled in before they were sealed.
    pub fills: u64,
    /// Blocks that were sent with an expectation.
    pub expectations: u64,
    /// Cuts.
    pub cuts: u64,
    /// Punches.
    pub punches: u64,
    /// Folios that were evicted.
    pub evictions: u64,
    /// Writebacks that ended well.
    pub passes: u64,
    /// Writebacks that failed or were cancelled.
    pub failed: u64,
    /// Caches that failed or were lost.
    pub caches_lost: u64,
    /// Blocks changed by somebody else.
    pub others: u64,
    /// Blocks that were found changed.
    pub conflicts: u64,
    /// Blocks that were merged.
    pub merges: u64,
}

impl Lived {
    /// Adds another life's.
    pub fn add(&mut self, other: &Lived) {
        self.steps += other.steps;
        self.writes += other.writes;
        self.writes_meanwhile += other.writes_meanwhile;
        self.direct += other.direct;
        self.direct_failed += other.direct_failed;
        self.through += other.through;
        self.passed_over += other.passed_over;
        self.groups += other.groups;
        self.older_first += other.older_first;
        self.fills += other.fills;
        self.expectations += other.expectations;
        self.cuts += other.cuts;
        self.punches += other.punches;
        self.evictions += other.evictions;
        self.passes += other.passes;
        self.failed += other.failed;
        self.caches_lost += other.caches_lost;
        self.others += other.others;
        self.conflicts += other.conflicts;
        self.merges += other.merges;
    }
}
