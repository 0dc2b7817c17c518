//! Everything written back: all files at once, at the end, and when handles are dropped.
//!
//! A file whose last handle is dropped with something unwritten is kept, and written back by the engine.
//! Whoever is the last of an engine's handles and files to go waits for that. What cannot be written
//! even then is told on standard error: there is nobody else left to be told.

use std::sync::atomic::{AtomicUsize, Ordering};

use tracing::error;

use crate::{
    File, Unclosed,
    calls::MAX_CALLS,
    engine::Core,
    error_seq::Told,
    open_file::OpenFile,
    pass::PassKind,
    sync::{Arc, Mutex, PoisonError, thread},
    trace::tell,
    waits::WaitFor,
};

/// Held by every handle of an engine, and of its files.
pub(crate) struct Presence {
    core: Arc<Core>,
}

impl Presence {
    pub(crate) fn new(core: Arc<Core>) -> Arc<Presence> {
        Arc::new(Presence { core })
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Writes every open file back; those that could not be, with their errors.
    pub(crate) fn sync_all(self: &Arc<Self>) -> Vec<Unclosed> {
        let _waiting = self.core.waiting(WaitFor::SyncAll, None);
        let open = self.core.open_files();
        let sync = |file: Arc<OpenFile>| {
            let file = File::new(file, self.clone());
            file.sync().err().map(|error| Unclosed { file, error })
        };
        side_by_side(open, sync)
    }
}

/// Nobody can make anything dirty any more.
impl Drop for Presence {
    fn drop(&mut self) {
        // What is still to be uploaded waits where it is for the next engine.
        self.core.uploads.forget();
        let kept: Vec<_> = std::mem::take(&mut *self.core.kept()).into_values().collect();
        if is_own_thread() && !kept.is_empty() {
            // A callback had the last handle: this thread is needed for the writing.
            thread::spawn(move || write_back_the_rest(kept));
        } else {
            write_back_the_rest(kept);
        }
    }
}

fn write_back_the_rest(kept: Vec<Arc<OpenFile>>) {
    let sync = |file: Arc<OpenFile>| {
        let mut heard = file.passes.n_errors();
        let failed = file.sync_now(PassKind::Sync).err();
        // What it finds gone is told in no other way.
        let gone = || file.passes.errors_since(&mut heard).map(Told::error);
        failed.or_else(gone).map(|error| (file, error))
    };
    for (file, error) in side_by_side(kept, sync) {
        let (id, lost) = (file.header().file_id(), file.folios().dirty_bytes());
        tell(|| error!(target: "sealback::engine", file = file.name(), lost, %error, "lost"));
        eprintln!("sealback: {lost} bytes of the file {id} could not be written back: {error}");
    }
}

/// Whether this is a thread that the engine works with.
fn is_own_thread() -> bool {
    thread::current().name().is_some_and(|name| name.starts_with("sealback-"))
}

/// Calls `run` for all of `items`, several at once, and returns what it found.
fn side_by_side<T: Send, R: Send>(items: Vec<T>, run: impl Fn(T) -> Option<R> + Sync) -> Vec<R> {
    let items: Vec<_> = items.into_iter().map(|item| Mutex::new(Some(item))).collect();
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            let item = item.lock().unwrap_or_else(PoisonError::into_inner).take();
            let result = item.and_then(&run);
            found.lock().unwrap_or_else(PoisonError::into_inner).extend(result);
        }
    };
    thread::scope(|scope| {
        for _ in 1..items.len().min(MAX_CALLS) {
            scope.spawn(work);
        }
        work();
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

impl OpenFile {
    /// There is one more handle: whoever has it sees to what is unwritten.
    pub(crate) fn handle_made(&self) {
        let mut kept = self.core.kept();
        self.n_handles.fetch_add(1, Ordering::Relaxed);
        let taken_over = kept.remove(&self.number());
        drop(kept);
        drop(taken_over);
    }

    /// A handle is dropped. Is it the last one, the file is kept until it has been written back. A
    /// draft that is not published is given up.
    pub(crate) fn handle_dropped(self: &Arc<Self>) {
        let mut kept = self.core.kept();
        let was_last = self.n_handles.fetch_sub(1, Ordering::Relaxed) == 1;
        if !was_last || self.is_draft() || !self.folios().is_unwritten() {
            return;
        }
        kept.insert(self.number(), self.clone());
        drop(kept);
        let file = self.clone();
        // If it fails, the last one to go tries again.
        self.core.calls.run(move || {
            let _ = file.sync_now(PassKind::Sync);
            let mut kept = file.core.kept();
            // Somebody may have opened it since, written to it, and dropped it.
            let written = !file.folios().is_unwritten();
            let let_go = written.then(|| kept.remove(&file.number()));
            drop(kept);
            drop(let_go);
        });
    }
}
