//! Written behind: what waits in a log is promised to its writers, and uploaded when it can be.
//!
//! To a file that is written behind the engine writes as to any. What it would commit it promises: the log
//! keeps that, and a header that says so is committed by the upload. The server's generations so go on
//! where they are, whatever was promised here.
//!
//! What is no write is done on the server itself, by a client beside this one, after all that waits has
//! been uploaded; and then it is followed as if somebody else had done it.

use std::{collections::VecDeque, ops::Range};

use sealback_crypto::Header;
use sealback_stream::{BehindFile, Name, Pending, Promise, Target, WriteBehind, WriteLog};
use tracing::{info, warn};

use crate::{
    Engine, Error, File, Place,
    engine::Core,
    open_file::OpenFile,
    pass::PassKind,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    trace::tell,
};

mod taking;
mod upload;
mod waiting;

/// What came of one file that was to be uploaded.
#[derive(Debug)]
pub struct Resumed {
    /// Its name.
    pub name: Name,
    /// What was uploaded of it, now that all of it is on the server; if that is not so, it still waits.
    pub uploaded: Result<Uploaded, Error>,
}

/// What this engine has uploaded of a file that is written behind, since the file is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Uploaded {
    /// Blocks that the server has taken.
    pub blocks: u64,
    /// Their stored bytes.
    pub bytes: u64,
    /// How many of the blocks somebody else had changed: they were merged, and sealed anew.
    pub merged: u64,
    /// The server had an older state of the file than was seen here before: what was uploaded in between, by
    /// whomever, it has no more.
    pub was_put_back: bool,
}

impl Engine {
    /// Uploads what an earlier process, or this one, has written behind and not uploaded. A block that
    /// somebody else has changed since is merged: exactly the bytes that were written here are laid over it.
    /// A new file takes the place of whatever has its name, as it would have when it was published.
    ///
    /// `place` is where the files are, with `behind` as its server.
    ///
    /// # Errors
    /// [`Error::Server`] if it cannot be said what waits. Errors of a file are with that file.
    pub fn resume(&self, place: &Place<'_>, behind: &WriteBehind) -> Result<Vec<Resumed>, Error> {
        let pending = behind.pending().map_err(Error::server)?;
        let resume = |pending: Pending| {
            let opened = self.open_pending(place, &pending);
            let uploaded = opened.and_then(|file| file.upload().map(|()| file.uploaded()));
            Resumed { name: pending.name, uploaded }
        };
        Ok(pending.into_iter().map(resume).collect())
    }

    /// Opens a file of which something waits.
    ///
    /// # Errors
    /// As for [`open`](Engine::open); [`Error::Server`] if it is damaged here.
    pub fn open_pending(&self, place: &Place<'_>, pending: &Pending) -> Result<File, Error> {
        let target = pending.file.clone().map_err(Error::server)?;
        self.open_target(place, pending.name.as_str(), target)
    }
}

impl File {
    /// Of a file that is [written behind](sealback_stream::WriteBehind): uploads what was synced before the
    /// call, and waits for that. The engine does the same by itself, whenever the server is there; this says
    /// when it is done, or why not. Of any other file nothing waits.
    ///
    /// # Errors
    /// What keeps it from the server: it still waits.
    pub fn upload(&self) -> Result<(), Error> {
        self.file.core.check_open()?;
        self.file.upload()
    }

    /// What of the file was uploaded so far, by calls or by the engine itself.
    pub fn uploaded(&self) -> Uploaded {
        *self.file.uploaded()
    }
}

/// What was promised of a file and no header says.
pub(crate) fn promised_of(target: &dyn Target) -> Option<Promise> {
    target.behind().and_then(BehindFile::log).and_then(|log| log.promised())
}

/// Sees that what was found of a file in its log is what somebody with its key has written.
pub(crate) fn prove(target: &dyn Target, header: &Header) -> Result<(), Error> {
    let Some(log) = target.behind().and_then(BehindFile::log) else { return Ok(()) };
    log.prove(|said, mac| header.has_vouched(said, mac)).map_err(Error::server)
}

/// The header, and what was promised beside it.
pub(crate) fn keeping(header: Header, promised: Option<Promise>) -> Header {
    match promised {
        Some(Promise { grown_to, holes, .. }) => header.promising(grown_to, &holes),
        None => header,
    }
}

impl OpenFile {
    /// Where what is written waits, if the file is written behind.
    pub(crate) fn log(&self) -> Option<Arc<WriteLog>> {
        self.target.behind().and_then(BehindFile::log)
    }

    pub(crate) fn promised(&self) -> Option<Promise> {
        promised_of(&*self.target)
    }

    /// Whether something of it waits to be uploaded.
    fn waits_to_be_uploaded(&self) -> bool {
        match self.target.behind() {
            Some(behind) => !self.is_draft() && behind.log().is_none_or(|log| !log.is_empty()),
            None => false,
        }
    }

    /// Promises, where others commit, that the file is at least `size` long.
    pub(crate) fn promise(
        &self,
        log: &WriteLog,
        size: u64,
        holes: &Range<u64>,
    ) -> Result<(), Error> {
        let header = self.header();
        // What has not grown here may become shorter elsewhere.
        let grown_to = if size > header.size() { size } else { 0 };
        let size = size.max(header.size());
        let promise = Promise { grown_to, holes: holes.clone(), size };
        log.promise(&promise, &|said| header.vouch(said)).map_err(Error::server)?;
        self.barrier()?;
        self.set_header(header.promising(grown_to, holes));
        self.core.upload_file(self.number());
        Ok(())
    }

    /// Does on the server itself what is not written behind, after everything that was written; then goes on
    /// from what came of it.
    pub(crate) fn on_server<T>(
        self: &Arc<Self>,
        run: impl FnOnce(&Arc<OpenFile>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.sync_now(PassKind::Sync)?;
        self.upload()?;
        let Some(log) = self.log() else { return Err(Error::Conflict { blocks: Vec::new() }) };
        self.go_on_from_server()?;
        let done = run(&self.beside(&log)?)?;
        self.go_on_from_server()?;
        Ok(done)
    }

    /// Goes on from the header that is there now, whoever has written it.
    fn go_on_from_server(self: &Arc<Self>) -> Result<(), Error> {
        self.met(self.reread_header(&self.header())?)
    }

    /// Finishes on the server a cut that was left half done.
    pub(crate) fn finish_cut_behind(self: &Arc<Self>, log: &WriteLog) -> Result<(), Error> {
        drop(self.beside(log)?.hold_sizes_for_change()?);
        let now = self.look_for_cut(&self.header())?;
        self.adopt_beside_ours(now)
    }
}

/// Files of which something waits to be uploaded.
#[derive(Debug, Default)]
pub(crate) struct Uploads(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    due: VecDeque<Arc<OpenFile>>,
    /// Those that failed since somebody began.
    failed: VecDeque<Arc<OpenFile>>,
    step: Step,
    /// How often in a row something failed.
    failures: u32,
    /// All that waits of any file is to be uploaded, whether it was synced or not.
    for_room: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    #[default]
    Idle,
    /// Somebody uploads, or is about to.
    Running,
    /// Somebody will when it is time.
    Waiting,
}

impl Uploads {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of all files.
    pub(crate) fn forget(&self) {
        let mut state = self.state();
        let forgotten = (std::mem::take(&mut state.due), std::mem::take(&mut state.failed));
        drop(state);
        drop(forgotten);
    }

    /// What is to be done next.
    fn next(&self) -> Next {
        let mut state = self.state();
        if let Some(file) = state.due.pop_front() {
            return Next::Upload(file);
        }
        if std::mem::take(&mut state.for_room) {
            return Next::Gather;
        }
        if state.failed.is_empty() {
            (state.step, state.failures) = (Step::Idle, 0);
            return Next::Rest;
        }
        state.due = std::mem::take(&mut state.failed);
        state.failures = state.failures.saturating_add(1);
        state.step = Step::Waiting;
        Next::TryAgain { failures: state.failures }
    }

    /// Adds a file, unless it is there already.
    fn add(&self, file: &Arc<OpenFile>) -> MutexGuard<'_, State> {
        let mut state = self.state();
        let is_there = state.due.iter().chain(&state.failed).any(|there| Arc::ptr_eq(there, file));
        if !is_there {
            state.due.push_back(file.clone());
        }
        state
    }
}

/// What who uploads does next.
enum Next {
    /// Looks of which files something waits.
    Gather,
    /// Nothing.
    Rest,
    /// Tries those again that failed, when it is time.
    TryAgain {
        failures: u32,
    },
    Upload(Arc<OpenFile>),
}

impl Core {
    /// As [`upload_soon`](Core::upload_soon), for the file of a number.
    fn upload_file(self: &Arc<Self>, number: u64) {
        if let Some(file) = self.file(number) {
            self.upload_soon(&file);
        }
    }

    /// Has what waits of a file uploaded, on another thread.
    pub(crate) fn upload_soon(self: &Arc<Self>, file: &Arc<OpenFile>) {
        if file.waits_to_be_uploaded() {
            self.begin_uploads(self.uploads.add(file));
        }
    }

    /// Has whatever waits of any open file uploaded, on another thread: somebody needs the room. Takes no
    /// lock but that of the uploads.
    pub(crate) fn upload_for_room(self: &Arc<Self>) {
        let mut state = self.uploads.state();
        state.for_room = true;
        self.begin_uploads(state);
    }

    fn begin_uploads(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if state.step == Step::Idle {
            state.step = Step::Running;
            drop(state);
            self.upload_on_a_call();
        }
    }

    fn upload_on_a_call(self: &Arc<Self>) {
        let core = Arc::downgrade(self);
        self.calls.run(move || {
            if let Some(core) = core.upgrade() {
                core.upload_all();
            }
        });
    }

    /// Uploads all that is due. What fails waits for a growing time; that begins and ends with one line.
    fn upload_all(self: &Arc<Self>) {
        let failures = loop {
            match self.uploads.next() {
                Next::Gather => {
                    let open = self.open_files();
                    let waiting = open.iter().filter(|file| file.waits_to_be_uploaded());
                    waiting.for_each(|file| drop(self.uploads.add(file)));
                }
                Next::Rest => return,
                Next::TryAgain { failures } => break failures,
                Next::Upload(file) => self.upload_one(&file),
            }
        };
        let delay = self.config.retry.delay(failures + 1, fastrand::u64(..));
        let core = Arc::downgrade(self);
        let wake = Box::new(move || {
            if let Some(core) = core.upgrade() {
                core.uploads.state().step = Step::Running;
                core.upload_on_a_call();
            }
        });
        self.io.wake_after(delay, wake);
    }

    fn upload_one(&self, file: &Arc<OpenFile>) {
        let uploaded = file.upload();
        let mut state = self.uploads.state();
        let failures = state.failures;
        match uploaded {
            Ok(()) if failures > 0 => {
                state.failures = 0;
                drop(state);
                tell(|| info!(target: "sealback::behind", file = file.name(), "uploads go on"));
            }
            Ok(()) => {}
            Err(error) => {
                let is_first = failures == 0 && state.failed.is_empty();
                state.failed.push_back(file.clone());
                drop(state);
                if is_first {
                    tell(
                        || warn!(target: "sealback::behind", file = file.name(), %error, "uploads wait"),
                    );
                }
            }
        }
    }
}
