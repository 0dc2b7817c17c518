//! What the runs of a simulator went through.

/// How often the runs met what they were made for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Met {
    /// Events handed to requests.
    pub steps: u64,
    /// Writes that failed transiently.
    pub transient: u64,
    /// Writes that were dropped without an answer.
    pub dropped: u64,
    /// Writes that were done and answered as failures.
    pub unknown: u64,
    /// Writes that asked to be renegotiated.
    pub renegotiated: u64,
    /// Writes of several runs of blocks, with gaps between.
    pub vectored: u64,
    /// Writes that went through in part.
    pub short: u64,
    /// Of these, those that ended within a block.
    pub torn: u64,
    /// Writes that met a conflict.
    pub conflicts: u64,
    /// Blocks that were merged.
    pub merges: u64,
    /// Requests that drained and reissued.
    pub reissues: u64,
    /// Subrequests that carry a part of what failed in one.
    pub splits: u64,
    /// Subrequests that carry what failed in several.
    pub joins: u64,
    /// Reissues that waited their time.
    pub back_offs: u64,
    /// Grants refused for want of credit.
    pub no_credit: u64,
    /// Times the issuer found no buffer.
    pub starved: u64,
    /// Times the source had to wait.
    pub waited: u64,
    /// Times somebody began to wait for the end.
    pub hurried: u64,
    /// Caches that were switched off.
    pub cache_off: u64,
    /// Cache writes that were never answered.
    pub hung: u64,
    /// Requests that were cancelled.
    pub cancelled: u64,
    /// Requests that failed or were cancelled.
    pub failed: u64,
    /// Folios that were dirty again.
    pub redirtied: u64,
    /// Requests with a second server that went well.
    pub mirrored: u64,
    /// Folios released before the request had ended.
    pub released_early: u64,
}

impl Met {
    /// Adds another run's.
    pub fn add(&mut self, other: &Met) {
        self.steps += other.steps;
        self.transient += other.transient;
        self.dropped += other.dropped;
        self.unknown += other.unknown;
        self.renegotiated += other.renegotiated;
        self.short += other.short;
        self.vectored += other.vectored;
        self.torn += other.torn;
        self.conflicts += other.conflicts;
        self.merges += other.merges;
        self.reissues += other.reissues;
        self.splits += other.splits;
        self.joins += other.joins;
        self.back_offs += other.back_offs;
        self.no_credit += other.no_credit;
        self.starved += other.starved;
        self.waited += other.waited;
        self.hurried += other.hurried;
        self.cache_off += other.cache_off;
        self.hung += other.hung;
        self.cancelled += other.cancelled;
        self.failed += other.failed;
        self.redirtied += other.redirtied;
        self.mirrored += other.mirrored;
        self.released_early += other.released_early;
    }
}
