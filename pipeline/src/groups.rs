//! Write groups: what is written before others is on the server before them.
//!
//! A group is what was dirtied in a file between two calls of [`File::close_group`]. A pass takes
//! folios of one group, the oldest that has something left, and while there is an older one nothing of a
//! newer is sent. Ceph's snapshots need that order, and to be told when a group has ended.

use std::ops::Range;

use crate::{
    Error, File,
    growth::Growth,
    io::contain,
    open_file::OpenFile,
    operation::{Ender, Operation, operation},
    origin::Subject,
    page_cache::Older,
    pass::{Pass, PassKind},
    passes::{HeldBack, Idle, MAX_PASSES, Plan},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A write group of one file: see [`File::close_group`]. Older ones are less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteGroup(u64);

/// Who waits for the end of which group.
#[derive(Default)]
pub(crate) struct GroupEnds(Mutex<Vec<GroupEnd>>);

/// A group, and what ends the operation of who waits for it.
type GroupEnd = (u64, Ender<Result<(), Error>>);

impl GroupEnds {
    fn ends(&self) -> MutexGuard<'_, Vec<GroupEnd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file is gone, and its groups with it.
impl Drop for GroupEnds {
    fn drop(&mut self) {
        for (_, ender) in self.ends().drain(..) {
            ender.end(Err(Error::Closed));
        }
    }
}

impl File {
    /// Closes the file's write group and begins the next: what is written from now on is sent only when
    /// all that was written before is on the server. Returns the group that was closed; its
    /// [end](File::group_ended) is told. Waits for nothing.
    ///
    /// A write into a folio (or block, if that is larger) that is dirty and of an older group has that
    /// written back first, and no more than is needed for it: it waits for the server, and fails if
    /// that does not take it. So does a write behind the committed size and within what an older group
    /// has grown to; a cut; and a direct write, wherever it is. A write that is under way on another
    /// thread may be in both groups, in each with whole folios.
    ///
    /// Each writeback is of one group, the oldest: [`writeback`](File::writeback) has to be called again
    /// for the next. A [`sync`](File::sync) writes all that there were when it was called.
    ///
    /// ```
    /// # use sealback::{Config, CreateOptions, Engine, Place, crypto::RootKey};
    /// # use sealback::stream::{MemoryOptions, MemoryServer, Name};
    /// # let engine = Engine::new(Config::default())?;
    /// # let (server, root) = (MemoryServer::new(MemoryOptions::default()), RootKey::from_bytes(&[7; 32]));
    /// # let place = Place { server: &server, cache: None, root: &root };
    /// # let name = Name::new("letter").expect("a plain name");
    /// # let file = engine.create(&place, &name, &CreateOptions::default())?;
    /// file.write_at(0, b"before the snapshot")?;
    /// let before = file.close_group();
    /// file.group_ended(before).on_done(|ended| {
    ///     // The server has what was written before, and nothing of what comes behind: tell it.
    ///     assert!(ended.is_ok());
    /// });
    /// file.write_at(1 << 20, b"after it")?;
    /// file.sync()?;
    /// # Ok::<(), sealback::Error>(())
    /// ```
    pub fn close_group(&self) -> WriteGroup {
        let group = self.file.folios().close_group();
        self.file.tell_ended_groups_if_idle();
        WriteGroup(group)
    }

    /// The write group that what is written now belongs to.
    pub fn write_group(&self) -> WriteGroup {
        WriteGroup(self.file.folios().group())
    }

    /// Tells, by an operation to be waited for, awaited, or called back from, when a group of this file
    /// has ended: it is closed, and all of it, and of the groups before, has been acknowledged by
    /// the server, with a header that speaks for as much as the file had grown to. A callback is called
    /// before anything of a newer group is sent; it must neither block nor call into the engine.
    ///
    /// What fails on the way is told by the calls that it happens to, and by syncs; the group ends
    /// when it has been sent after all. Where the server acknowledges what is not durable, a
    /// [`sync`](File::sync) makes it so.
    ///
    /// # Errors
    /// [`Error::Closed`] if the file is let go of before.
    pub fn group_ended(&self, group: WriteGroup) -> Operation<Result<(), Error>> {
        let (ender, operation) = operation();
        self.file.group_ends.ends().push((group.0, ender));
        self.file.tell_ended_groups_if_idle();
        operation
    }
}

impl OpenFile {
    /// Tells whoever waits of the groups of which nothing is left; while a pass runs, its end does.
    fn tell_ended_groups_if_idle(&self) {
        if !self.passes.is_running() {
            self.tell_ended_groups();
        }
    }

    /// Tells whoever waits of the groups of which nothing is left, and then lets newer ones be sent.
    pub(crate) fn tell_ended_groups(&self) {
        let done = self.folios().newest_done(self.is_draft());
        if let Some(done) = done {
            self.tell(|group| group <= done);
            self.folios().end_groups(done);
        }
        self.tell(|group| self.folios().has_ended(group));
    }

    fn tell(&self, has_ended: impl Fn(u64) -> bool) {
        let is_told = |(group, _): &mut GroupEnd| has_ended(*group);
        let told: Vec<_> = self.group_ends.ends().extract_if(.., is_told).collect();
        for (_, ender) in told {
            // A callback that panics must not keep the pass from ending.
            contain(|| ender.end(Ok(())));
        }
    }

    /// Whether there is a group to be told of.
    pub(crate) fn has_ended_groups(&self) -> bool {
        self.folios().newest_done(self.is_draft()).is_some()
    }

    /// Waits until no pass runs, and nothing is left of the groups before the current one. To be called
    /// with sizes held.
    pub(crate) fn wait_for_older_groups(self: &Arc<Self>) -> Result<Idle<'_>, Error> {
        for _pass in 0..MAX_PASSES {
            let idle = self.passes.wait_until_none_runs();
            if self.n_older_groups() == 0 {
                return Ok(idle);
            }
            self.carry_out(idle, self.plan(PassKind::Sync), None).result?;
        }
        Err(Error::Conflict { blocks: Vec::new() })
    }

    pub(crate) fn n_older_groups(&self) -> u64 {
        let folios = self.folios();
        folios.group() - folios.oldest_group()
    }

    /// Writes back what has to be before a write. To be called with sizes held.
    pub(crate) fn write_older(self: &Arc<Self>, range: &Range<u64>) -> Result<(), Error> {
        let idle = self.passes.wait_until_none_runs();
        let older = self.folios().older_within(range);
        let plan = match older {
            None => return Ok(()),
            Some(Older::Blocks(blocks)) => {
                let kind = PassKind::Range { start: blocks.start, end: blocks.end };
                let pass = Pass::of_oldest(self.clone(), blocks, self.grows());
                let growth = self.grows().then(Growth::default);
                Plan {
                    subject: Subject::of_pass(self, kind),
                    source: Arc::new(pass),
                    growth,
                    is_complete: false,
                    filling: None,
                    is_everybodys: true,
                }
            }
            Some(Older::Group) => self.plan(PassKind::Sync),
        };
        self.carry_out(idle, plan, None).result
    }

    /// Writes back all groups before the current one, while others are held back.
    pub(crate) fn write_older_alone(self: &Arc<Self>, alone: &HeldBack<'_>) -> Result<(), Error> {
        (0..self.n_older_groups()).try_for_each(|_| self.run_pass(alone, PassKind::Sync))
    }
}
