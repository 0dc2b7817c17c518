//! Uploading one file: the sealed bytes as they are, with what was expected of the server's; and a header.

use sealback_crypto::{Header, HeaderError, PREFIX_BYTES};
use sealback_stream::{BehindFile, LoggedBlock, Upload, WriteLog};
use tracing::warn;

use super::{keeping, taking::Taking};
use crate::{
    Error,
    open_file::OpenFile,
    ranges::{RangeSet, hull},
    sync::Arc,
    trace::tell,
};

/// What waited when an upload was asked for is frozen by then, or frozen next.
const SEGMENTS: u32 = 2;

impl OpenFile {
    /// Uploads what was written to the file and promised before the call; does nothing for a file that is not
    /// written behind.
    pub(crate) fn upload(self: &Arc<Self>) -> Result<(), Error> {
        let Some(behind) = self.target.behind() else { return Ok(()) };
        if behind.log().is_none() && !self.is_draft() {
            self.upload_new(behind)?;
        }
        let Some(log) = behind.log() else { return Ok(()) };
        for _ in 0..SEGMENTS {
            let header = self.header();
            let upload = log.upload(&|said| header.vouch(said)).map_err(Error::server)?;
            let Some(mut upload) = upload else { break };
            self.upload_frozen(&log, &mut upload)
                .inspect_err(|error| log.upload_failed(error.target()))?;
            upload.finish().map_err(Error::server)?;
        }
        Ok(())
    }

    fn upload_frozen(
        self: &Arc<Self>,
        log: &WriteLog,
        upload: &mut Upload<'_>,
    ) -> Result<(), Error> {
        let server = self.beside(log)?;
        let (before, merged) = (server.header(), self.uploaded().merged);
        self.look_whether_put_back(log, upload, &before)?;
        if upload.is_committed() {
            return Ok(());
        }
        server.take(self, upload)?;
        let now = server.header();
        log.keep_header(&now.to_bytes()[..]).map_err(Error::server)?;
        if self.uploaded().merged == merged {
            self.go_on_as_uploaded(&before, now);
        }
        upload.note_committed().map_err(Error::server)
    }

    /// If nobody else has written meanwhile, what is clean here, and what the cache has, is what the server has, and
    /// stays; else that is found out when the file is next looked at.
    fn go_on_as_uploaded(&self, before: &Header, now: Header) {
        let _one_at_a_time = self.commits();
        let nobody_else = now.generation() == before.generation() + 1;
        if nobody_else && self.header().mac() == before.mac() {
            self.set_header(keeping(now, self.promised()));
            self.tell_cache();
        }
    }

    /// A server that has an older header than it had has gone back to an earlier state, of its own or from a
    /// backup: what it had taken it may have no more. So everything is sent again, and that is told.
    fn look_whether_put_back(
        &self,
        log: &WriteLog,
        upload: &mut Upload<'_>,
        now: &Header,
    ) -> Result<(), Error> {
        let found = now.generation();
        // Only what was made with the file's key says what there was.
        let seen = match now.reopen(&log.header()[..]) {
            Ok(before) if before.generation() > found => before.generation(),
            Err(HeaderError::Forked { generation }) => generation,
            _ => return Ok(()),
        };
        tell(
            || warn!(target: "sealback::behind", file = self.name(), found, seen, "the server was put back"),
        );
        self.uploaded().was_put_back = true;
        upload.forget_sent();
        log.put_back(&now.to_bytes()).map_err(Error::server)
    }

    /// The same file as another client has it open, past the log.
    pub(super) fn beside(&self, log: &WriteLog) -> Result<Arc<OpenFile>, Error> {
        let target = log.server().map_err(Error::server)?;
        let bytes = target.read_header().map_err(Error::server)?;
        let header = self.header().reopen(&bytes)?;
        Ok(OpenFile::new(self.core.clone(), self.name(), target, header))
    }

    /// Takes over what was logged of a file, and commits a header that speaks for it.
    fn take(self: &Arc<Self>, of: &OpenFile, upload: &Upload<'_>) -> Result<(), Error> {
        drop(self.hold_sizes_for_change()?);
        let promise = upload.promised();
        let wanted = promise.grown_to.max(self.dirty_end(upload));
        // Somebody else may be making it longer.
        let _locked = if wanted > self.header().size() { self.lock_growth()? } else { None };
        let before = self.header().size();
        let grows = wanted > before;
        if grows {
            self.trim_behind_end()?;
        }
        let mut taking = Taking::new(self, of, grows);
        self.send(upload, &mut taking)?;
        let size = wanted.max(before);
        let mut holes = promise.holes;
        if grows {
            let n_blocks = self.geometry().n_blocks(before);
            let mut logged = RangeSet::default();
            upload.blocks().for_each(|(block, _)| logged.insert(block..block + 1));
            for gap in logged.missing(&(n_blocks..self.geometry().n_blocks(size))) {
                self.make_gap(&gap)?;
            }
            holes = hull(&holes, &taking.short_blocks(before, size));
        }
        let holes = holes.start..holes.end.min(self.geometry().n_blocks(size)).max(holes.start);
        let _one_at_a_time = self.commits();
        self.commit_size(size, &holes)
    }

    /// Where the last byte that was changed ends.
    fn dirty_end(&self, upload: &Upload<'_>) -> u64 {
        let end = |(block, logged): (u64, &LoggedBlock)| {
            let whole = || self.geometry().block_start(block) + plain_bytes(logged);
            logged.dirty_end().unwrap_or_else(whole)
        };
        upload.blocks().map(end).max().unwrap_or(0)
    }

    /// Sends what is not there yet. What is, and what a header speaks for, is noted: should this be done again,
    /// nothing is laid over what others have made of it meanwhile.
    fn send(&self, upload: &Upload<'_>, taking: &mut Taking<'_>) -> Result<(), Error> {
        let n_whole = self.header().size() / self.geometry().block_bytes();
        let blocks: Vec<_> = upload.blocks().collect();
        let mut rest = &blocks[..];
        while let Some((first, _)) = rest.first() {
            let most = taking.room_at(*first)?;
            let (run, behind) = rest.split_at(run_len(rest, most, self.geometry().stride_bytes()));
            let stored = upload.read(*first..*first + run.len() as u64).map_err(Error::server)?;
            let plain_len = run.iter().map(|(_, logged)| plain_bytes(logged)).sum();
            taking.take(*first, plain_len, stored, &|block| {
                let at = run.iter().find(|(logged, _)| *logged == block);
                at.map(|(_, logged)| (*logged).clone())
            })?;
            let sent = *first..(*first + run.len() as u64).min(n_whole);
            if !sent.is_empty() {
                upload.note_sent(sent).map_err(Error::server)?;
            }
            rest = behind;
        }
        Ok(())
    }

    /// Takes a file of which all is here to the server, while nobody writes to it.
    fn upload_new(self: &Arc<Self>, behind: &BehindFile) -> Result<(), Error> {
        let _alone = self.alone();
        let uploaded = behind.upload_new(|new, server, name| {
            let bytes = new.read_header().map_err(Error::server)?;
            let header = self.header().reopen(&bytes)?;
            if let Ok(there) = server.open(name)
                && let Ok(bytes) = there.read_header()
                && header.reopen(&bytes).is_ok()
            {
                // It was put there before, and not let go of here.
                return Ok(());
            }
            let target =
                server.draft(name, header.file_id(), &header.to_bytes()).map_err(Error::server)?;
            let draft = OpenFile::new(self.core.clone(), self.name(), target, header);
            draft.set_draft(true);
            draft.copy_of(self, new)?;
            draft.barrier()?;
            draft.target.publish().map_err(Error::server)
        });
        uploaded.map_err(Error::server)?
    }
}

/// Plaintext bytes of a block.
fn plain_bytes(logged: &LoggedBlock) -> u64 {
    u64::from(logged.bytes).saturating_sub(PREFIX_BYTES as u64)
}

/// How many blocks at the front follow one another, all full but the last, within so many stored bytes.
fn run_len(blocks: &[(u64, &LoggedBlock)], most: u64, stride: u64) -> usize {
    let mut bytes = 0;
    let mut n = 0;
    for (block, logged) in blocks {
        let follows = *block == blocks[0].0 + n as u64;
        bytes += u64::from(logged.bytes);
        if n > 0 && (!follows || bytes > most) {
            break;
        }
        n += 1;
        if u64::from(logged.bytes) < stride {
            break;
        }
    }
    n
}
