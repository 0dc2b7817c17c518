//! What was written to one file, acknowledged, and is not on the server yet.
//!
//! Writes go to the *active* segment. Who uploads freezes it, and has until he is done a segment that does
//! not change, while writes go to the next one. So what is uploaded is exactly what was written, and what
//! is written over it meanwhile expects, at its own upload, what was uploaded.
//!
//! ```text
//!  write, promise ──► active ──► frozen ──► uploaded, a header committed, durable ──► removed
//! ```
//!
//! **Invariants:**
//! 1. What is in the active segment is newer than what is in the frozen one; both than the server's.
//! 2. A segment is frozen only when a promise, or the header, speaks for all of its blocks.
//! 3. A segment is removed only when whoever uploaded it says that it is on the server, durably.

use std::{
    fmt, io,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
};

use sealback_crypto::{FileId, Geometry, HEADER_BYTES};

use super::{
    files::Files,
    home::Home,
    segment::{Promise, Segment},
    state::State,
    upload::Upload,
};
use crate::{BlockConflict, Failure, Name, Target, TargetError, TargetErrorKind, Write};

/// One file's log.
pub struct WriteLog {
    pub(super) home: Arc<Home>,
    name: Name,
    file_id: FileId,
    geometry: Geometry,
    /// What its files are called.
    pub(super) stem: String,
    state: Mutex<State>,
    /// The file on the server, once it was there to be opened.
    server: Mutex<Option<Arc<dyn Target>>>,
    /// Held by who uploads.
    uploading: Mutex<()>,
}

impl WriteLog {
    pub(super) fn open(
        home: Arc<Home>,
        (name, file_id, geometry): (Name, FileId, Geometry),
        header: Box<[u8; HEADER_BYTES]>,
        server: Option<Arc<dyn Target>>,
    ) -> Result<WriteLog, TargetError> {
        let stem = Files::stem(&name, file_id);
        let mut segments = home.files().segments(&stem)?.into_iter();
        let next = segments.len() as u64;
        let (first, second) = (segments.next(), segments.next());
        let (frozen, active) = match second {
            Some(_) => (first, second),
            None => (None, first),
        };
        let next = active.as_ref().map_or(next, |(number, _)| number + 1);
        let frozen = frozen.map(|(number, segment)| (number, Arc::new(segment)));
        let found = frozen.iter().map(|(_, segment)| &**segment);
        let found = found.chain(active.iter().map(|(_, segment)| segment));
        let is_proven = found.into_iter().all(|segment| segment.claim().is_none());
        let (is_gone, is_refused) = (false, false);
        let mut state = State { header, frozen, active, next, is_gone, is_refused, is_proven };
        let n_promised = state.n_promised(geometry);
        if let Some((_, segment)) = &mut state.active {
            segment.drop_unpromised(n_promised).map_err(unwritten)?;
        }
        home.room().take(state.bytes());
        let (state, server, uploading) = (Mutex::new(state), Mutex::new(server), Mutex::default());
        Ok(WriteLog { home, name, file_id, geometry, stem, state, server, uploading })
    }

    /// The name of the file.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Whether everything is on the server.
    pub fn is_empty(&self) -> bool {
        let state = self.state();
        state.is_gone || state.is_empty()
    }

    /// What it takes on the disk, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.state().bytes()
    }

    /// The blocks that are here, sealed, ascending; each with the positions in the file that were changed, or
    /// none if all of it was.
    pub fn written(&self) -> Vec<(u64, Vec<Range<u64>>)> {
        self.state().written()
    }

    /// What was acknowledged and no header says yet.
    pub fn promised(&self) -> Option<Promise> {
        self.state().promised()
    }

    /// Has who has the file's key look whether what was found here when the log was opened is what somebody
    /// with that key has written: `has_vouched` is given what was said, and the MAC that `vouch` made of that.
    ///
    /// # Errors
    /// [`TargetErrorKind::Damaged`] if it is not. All stays as it is found, and nothing of it is uploaded.
    pub fn prove(&self, has_vouched: impl Fn(&[u8], &[u8; 32]) -> bool) -> Result<(), TargetError> {
        let mut state = self.state();
        let is_vouched = |segment: &Segment| {
            segment.claim().is_none_or(|claim| has_vouched(&claim.said, &claim.mac))
        };
        let all_are = state.segments().all(is_vouched);
        state.is_proven |= all_are;
        if state.is_proven { Ok(()) } else { Err(unproven()) }
    }

    /// Notes what the file is from now on to whoever asks here, until a header says so: in its place. Durable
    /// after the next barrier. `vouch` makes a MAC of what tells all that is here from anything else.
    ///
    /// # Errors
    /// [`TargetError`] if it cannot be written.
    pub fn promise(
        &self,
        promise: &Promise,
        vouch: &dyn Fn(&[u8]) -> [u8; 32],
    ) -> Result<(), TargetError> {
        let mut state = self.state();
        self.change(&mut state, |segment| segment.promise(promise, vouch))?;
        let is_large =
            state.active.as_ref().is_some_and(|(_, active)| active.bytes() > LARGE_BYTES);
        // Who writes on and on leaves no later moment at which all that is there was promised.
        if is_large { self.freeze(&mut state) } else { Ok(()) }
    }

    /// Freezes what was written, if none is frozen and all of it was promised.
    fn freeze(&self, state: &mut State) -> Result<(), TargetError> {
        let n_promised = state.n_promised(self.geometry);
        if state.frozen.is_none()
            && let Some((number, mut active)) =
                state.active.take_if(|(_, active)| active.end_block() <= n_promised)
        {
            let before = active.bytes();
            let kept = active.keep(self.waits_for_disk());
            self.home.room().take(active.bytes() - before);
            if let Err(error) = unless_full(kept.map_err(unwritten)) {
                state.active = Some((number, active));
                return Err(error);
            }
            state.frozen = Some((number, Arc::new(active)));
        }
        Ok(())
    }

    /// The file on the server, which is asked for if need be.
    ///
    /// # Errors
    /// [`TargetErrorKind::NotFound`] if it is gone, or another file has its name; others if the server does
    /// not answer.
    pub fn server(&self) -> Result<Arc<dyn Target>, TargetError> {
        let mut slot = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = &*slot {
            return Ok(server.clone());
        }
        let server = self.home.at_once(|server| server.open(&self.name))?;
        let header = self.home.heard(server.read_header())?;
        let id = header.first_chunk().and_then(super::home::claims).map(|(id, _)| id);
        if id != Some(self.file_id) {
            let context = format!("'{}' is another file than what was written to", self.name);
            return Err(TargetError::new(TargetErrorKind::NotFound, context));
        }
        *slot = Some(server.clone());
        Ok(server)
    }

    /// Freezes what there is, and lets it be uploaded; `None` if there is nothing, or nothing that was
    /// promised whole. Waits for whoever uploads it. `vouch` is as for [`promise`](WriteLog::promise).
    ///
    /// # Errors
    /// [`TargetError`] if what there is cannot be made durable, or is not [proven](WriteLog::prove).
    pub fn upload(
        &self,
        vouch: &dyn Fn(&[u8]) -> [u8; 32],
    ) -> Result<Option<Upload<'_>>, TargetError> {
        let alone = self.uploading.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.state();
        if !state.is_proven {
            return Err(unproven());
        }
        // What is uploaded is what is found should this be done again, to its last byte.
        if state.active.as_ref().is_some_and(|(_, active)| active.is_ahead()) && !state.is_gone {
            let promise = Promise::default();
            unless_full(self.change(&mut state, |segment| segment.promise(&promise, vouch)))?;
        }
        self.freeze(&mut state)?;
        let frozen = state.frozen.clone().filter(|_| !state.is_gone);
        drop(state);
        let Some((number, segment)) = frozen else { return Ok(None) };
        let progress = self.home.files().progress(&self.stem, number, &segment)?;
        Ok(Some(Upload::new(self, (number, segment), progress, alone)))
    }

    /// What was frozen is on the server: it goes.
    pub(super) fn let_go(&self, number: u64, segment: &Segment) -> Result<(), TargetError> {
        let mut state = self.state();
        self.home.files().remove(&self.stem, number)?;
        // Nobody dropped it meanwhile.
        if state.frozen.take_if(|(frozen, _)| *frozen == number).is_some() {
            state.is_refused = false;
            drop(state);
            self.home.room().give_back(segment.bytes());
        }
        Ok(())
    }

    pub(super) fn geometry(&self) -> Geometry {
        self.geometry
    }

    pub(super) fn waits_for_disk(&self) -> bool {
        self.home.files().waits_for_disk()
    }

    /// Writes what is expected to be written over what is here, or else on the server.
    pub(super) fn write(&self, write: &Write) -> Result<u64, Failure> {
        let there = self.stored_there(write);
        let mut state = self.state();
        let conflicts = write.expectations.iter().filter_map(|expectation| {
            let block = expectation.block;
            let known = state.nonce(block).or_else(|| {
                there.iter().find(|(there, _)| *there == block).map(|(_, nonce)| *nonce)
            });
            let stored = known?;
            let holds = expectation.holds(stored, write.nonce(block));
            (!holds).then_some(BlockConflict { block, stored })
        });
        let conflicts: Vec<_> = conflicts.collect();
        if !conflicts.is_empty() {
            return Err(Failure::Conflict(conflicts));
        }
        if state.is_refused || self.home.room().fails_when_full() {
            self.home.room().check(write.bytes()).map_err(Failure::Retry)?;
        }
        self.change(&mut state, |segment| segment.append(write))?;
        Ok(write.bytes())
    }

    /// Asks the file on the server, unless that did not answer a moment ago.
    pub(super) fn ask<T>(
        &self,
        ask: impl FnOnce(&dyn Target) -> Result<T, TargetError>,
    ) -> Result<T, TargetError> {
        self.home.ask(|| ask(&*self.server()?).inspect_err(|_| self.reopen()))
    }

    /// The file on the server is opened anew when it is next asked for: what is open has failed, and may be of
    /// a server that has gone and come back as another.
    fn reopen(&self) {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// An upload has failed: by the server's doing `error`, or by what was found there. Is it not just away,
    /// nobody waits for room that nothing may ever make.
    pub fn upload_failed(&self, error: Option<&TargetError>) {
        self.reopen();
        self.state().is_refused = !error.is_some_and(super::home::is_away);
        self.home.room().wake();
    }

    /// Whether a write is to wait until something has been uploaded; then `waker` is woken.
    pub(super) fn must_wait(&self, waker: &Waker) -> bool {
        self.home.room().must_wait(waker) && self.state().can_be_uploaded(self.geometry)
    }

    /// Whether the logs take so much that something should be uploaded.
    pub(super) fn is_short_of_room(&self) -> bool {
        self.home.room().is_short()
    }

    /// Notes that the file was cut on the server.
    pub(super) fn cut(&self, n_blocks: u64) -> Result<(), TargetError> {
        let mut state = self.state();
        if state.is_empty() {
            return Ok(());
        }
        self.change(&mut state, |segment| segment.cut(n_blocks))
    }

    /// Waits until what was written is as durable as was asked for.
    pub(super) fn sync(&self) -> Result<(), TargetError> {
        let mut state = self.state();
        if state.is_gone || state.active.is_none() {
            return Ok(());
        }
        self.change(&mut state, |segment| segment.keep(self.waits_for_disk()))
    }

    /// Changes the active segment, which is begun if there is none.
    fn change(
        &self,
        state: &mut State,
        change: impl FnOnce(&mut Segment) -> io::Result<()>,
    ) -> Result<(), TargetError> {
        if state.is_gone {
            let context = "the file was replaced or removed since it was opened";
            return Err(TargetError::new(TargetErrorKind::NotFound, context));
        }
        if state.active.is_none() {
            let segment = self.home.files().begin(&self.stem, state.next)?;
            state.active = Some((state.next, segment));
            state.next += 1;
        }
        let (_, segment) = state.active.as_mut().expect("it was begun");
        let before = segment.bytes();
        change(segment).map_err(unwritten)?;
        self.home.room().take(segment.bytes() - before);
        Ok(())
    }

    /// The file is gone: nothing of it is uploaded any more. Who has it open still reads what was written.
    pub(super) fn discard(&self) -> Result<(), TargetError> {
        self.state().is_gone = true;
        self.home.files().discard(&self.stem)
    }

    /// Drops what nobody was promised: whoever wrote it behind the file's end has given it up.
    ///
    /// # Errors
    /// [`TargetError`] if the log cannot be written to.
    pub fn drop_unpromised(&self) -> Result<(), TargetError> {
        let mut state = self.state();
        if state.is_gone || state.active.is_none() {
            return Ok(());
        }
        let n_promised = state.n_promised(self.geometry);
        self.change(&mut state, |segment| segment.drop_unpromised(n_promised))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for WriteLog {
    fn drop(&mut self) {
        self.home.room().give_back(self.bytes());
    }
}

impl fmt::Debug for WriteLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteLog").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a segment has before it is uploaded apart from what is written then, if it can be.
const LARGE_BYTES: u64 = 32 << 20;

pub(super) fn unread(error: io::Error) -> TargetError {
    TargetError::from_io("reading what waits to be uploaded", error)
}

/// Without a note that the disk has no room for, what waits is uploaded all the same: nothing else makes room.
/// What is not noted is found out anew, or done again.
pub(super) fn unless_full(noted: Result<(), TargetError>) -> Result<(), TargetError> {
    noted
        .or_else(|error| if error.kind() == TargetErrorKind::NoSpace { Ok(()) } else { Err(error) })
}

fn unproven() -> TargetError {
    let context = "what waits is not what was written by somebody with the file's key";
    TargetError::new(TargetErrorKind::Damaged, context)
}

fn unwritten(error: io::Error) -> TargetError {
    TargetError::from_io("writing to what waits to be uploaded", error)
}

pub(super) fn stride_len(geometry: Geometry) -> usize {
    index(geometry.stride_bytes())
}

pub(super) fn index(count: u64) -> usize {
    usize::try_from(count).expect("what is read is in memory")
}
