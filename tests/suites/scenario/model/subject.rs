//! A file beside a vector of bytes, and what can be done to both.

use std::time::Duration;

use proptest::prelude::*;
use sealback::{CacheReport, Config, Engine, Error, File, RetryLimits};
use sealback_crypto::{Engine as Cipher, FileId};
use sealback_stream::{Cache, Granule, MemoryCache, MemoryOptions, Server, faulty::Faults};
use sealback_tests::{
    auditor::Auditor,
    interpose::InterposedServer,
    reader::{read_sealed, repeated_nonces},
};

use super::super::served::{Served, stored};
use crate::support::{ROOT, config, create, name, open, read_all, sample};

/// Files stay about this small, so that everything meets everything.
const LARGEST: usize = 150_000;

#[derive(Clone, Debug)]
pub(super) enum Op {
    Append {
        len: usize,
    },
    /// The file is closed, and the cache's copy is lost, or damaged in one byte.
    CacheHurt {
        lost: bool,
        at: usize,
    },
    /// The file is closed, changed without the cache, closed, and opened with it again.
    ChangedElsewhere {
        at: usize,
        len: usize,
    },
    /// A write that is dropped after a sync: each of its bytes is there or not.
    Discard {
        at: usize,
        len: usize,
    },
    Punch {
        at: usize,
        len: usize,
    },
    Read {
        at: usize,
        len: usize,
    },
    ReadDirect {
        at: usize,
        len: usize,
    },
    Reopen,
    Revalidate,
    RevalidateDeep,
    SetLen {
        size: usize,
    },
    Sync,
    SyncRange {
        at: usize,
        len: usize,
    },
    Write {
        at: usize,
        len: usize,
    },
    WriteDirect {
        at: usize,
        len: usize,
    },
    /// Its first bytes are there; of the others, each or not.
    WriteDirectCancelled {
        at: usize,
        len: usize,
    },
    WriteFrom {
        at: usize,
        len: usize,
    },
    Writeback,
}

/// A size or position: any, or one about the edge of a block.
fn position() -> impl Strategy<Value = usize> {
    let edge =
        (0usize..=36, 0usize..3).prop_map(|(block, by)| (block * 4096 + by).saturating_sub(1));
    prop_oneof![2 => 0..LARGEST, 1 => edge]
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let extent = || (position(), 0usize..40_000);
    prop_oneof![
        6 => extent().prop_map(|(at, len)| Op::Write { at, len }),
        2 => extent().prop_map(|(at, len)| Op::WriteDirect { at, len }),
        1 => extent().prop_map(|(at, len)| Op::WriteDirectCancelled { at, len }),
        2 => extent().prop_map(|(at, len)| Op::WriteFrom { at, len }),
        1 => extent().prop_map(|(at, len)| Op::Discard { at, len }),
        1 => (0usize..20_000).prop_map(|len| Op::Append { len }),
        4 => extent().prop_map(|(at, len)| Op::Read { at, len }),
        1 => extent().prop_map(|(at, len)| Op::ReadDirect { at, len }),
        1 => extent().prop_map(|(at, len)| Op::SyncRange { at, len }),
        1 => Just(Op::Revalidate),
        1 => Just(Op::RevalidateDeep),
        2 => position().prop_map(|size| Op::SetLen { size }),
        2 => extent().prop_map(|(at, len)| Op::Punch { at, len }),
        1 => Just(Op::Sync),
        1 => Just(Op::Writeback),
        1 => Just(Op::Reopen),
        1 => (any::<bool>(), 8192..LARGEST).prop_map(|(lost, at)| Op::CacheHurt { lost, at }),
        1 => extent().prop_map(|(at, len)| Op::ChangedElsewhere { at, len }),
    ]
}

/// A file, and what it should hold.
pub(super) struct Subject<S> {
    pub(super) engine: Engine,
    pub(super) server: S,
    pub(super) cache: Option<MemoryCache>,
    pub(super) file: Option<File>,
    pub(super) model: Vec<u8>,
    pub(super) n_changes: usize,
}

pub(super) type Audited = InterposedServer<Served, Auditor>;

impl<S: Server> Subject<S> {
    pub(super) fn new(server: S, folio_shift: u32, block_shift: u32, cached: bool) -> Subject<S> {
        let first_delay = Duration::from_micros(10);
        let retry = RetryLimits { max_attempts: 40, first_delay, ..RetryLimits::default() };
        let config =
            Config { folio_bytes: 1 << folio_shift, cipher: Cipher::AesGcm, retry, ..config() };
        let engine = Engine::new(config).unwrap();
        // Half of the caches would rather have larger pieces.
        let new_cache = || match block_shift % 2 {
            0 => MemoryCache::new(MemoryOptions::default()),
            _ => MemoryCache::new(MemoryOptions::default())
                .with_granule(Granule::new(64 << 10).unwrap()),
        };
        let cache = cached.then(new_cache);
        let lent = cache.as_ref().map(|cache| cache as &dyn Cache);
        let file = create(&engine, &server, lent, 1 << block_shift);
        Subject { engine, server, cache, file: Some(file), model: Vec::new(), n_changes: 0 }
    }

    /// Nothing fails any more, and everything is on the server.
    pub(super) fn settle(&self, faults: &Faults) {
        faults.stop();
        drop(self.file().sync());
        self.file().sync().unwrap();
    }

    pub(super) fn file(&self) -> &File {
        self.file.as_ref().unwrap()
    }

    pub(super) fn close(&mut self) -> FileId {
        let file = self.file.take().unwrap();
        let file_id = file.file_id();
        file.close().map_err(|unclosed| unclosed.error).unwrap();
        file_id
    }

    pub(super) fn open(&mut self) {
        let cache = self.cache.as_ref().map(|cache| cache as &dyn Cache);
        self.file = Some(open(&self.engine, &self.server, cache));
    }

    /// Carries an operation out on the file and on the model.
    pub(super) fn run(&mut self, op: &Op) -> Result<(), Error> {
        self.n_changes += 1;
        match *op {
            Op::Append { len } => {
                let at = self.model.len();
                let data = self.data(at, len);
                assert_eq!(self.file().append(&data)?, at as u64);
            }
            Op::CacheHurt { lost, at } => {
                let file_id = self.close();
                self.hurt_cache(file_id, lost, at);
                self.open();
            }
            Op::ChangedElsewhere { at, len } => {
                self.close();
                let cache = self.cache.take();
                self.open();
                self.write(at, len)?;
                self.close();
                self.cache = cache;
                self.open();
            }
            Op::Discard { at, len } => {
                self.file().sync()?;
                let before = self.model.clone();
                self.write(at, len)?;
                self.file().discard();
                self.take_over(&before);
            }
            Op::Punch { at, len } => {
                let within = at.min(self.model.len())..(at + len).min(self.model.len());
                self.model[within].fill(0);
                self.file().punch(at as u64..(at + len) as u64)?;
            }
            Op::Read { at, len } => self.read(at, len, File::read_at)?,
            Op::ReadDirect { at, len } => self.read(at, len, File::read_direct)?,
            Op::Revalidate => self.file().revalidate()?,
            Op::RevalidateDeep => self.file().revalidate_deep().map(drop)?,
            Op::Reopen => {
                self.close();
                self.open();
            }
            Op::SetLen { size } => {
                self.model.resize(size, 0);
                self.file().set_len(size as u64)?;
            }
            Op::Sync => self.file().sync()?,
            Op::SyncRange { at, len } => self.file().sync_range(at as u64..(at + len) as u64)?,
            Op::Write { at, len } => self.write(at, len)?,
            Op::WriteDirect { at, len } => {
                let data = self.data(at, len);
                let written = self.file().write_direct(at as u64, data);
                written.result?;
                assert_eq!(written.bytes, written.buffer.len() as u64);
            }
            Op::WriteDirectCancelled { at, len } => self.write_and_cancel(at, len)?,
            Op::WriteFrom { at, len } => {
                let data = self.data(at, len);
                let (bytes, read) = self.file().write_from(at as u64, &mut &data[..], |_| ())?;
                read.unwrap();
                assert_eq!(bytes, data.len() as u64);
            }
            Op::Writeback => drop(self.file().writeback()),
        }
        Ok(())
    }

    fn write_and_cancel(&mut self, at: usize, len: usize) -> Result<(), Error> {
        let before = self.model.clone();
        let data = self.data(at, len);
        let writing = self.file().start_write_direct(at as u64, data);
        writing.cancel();
        let written = writing.wait();
        let stored = usize::try_from(written.bytes).unwrap();
        self.take_over(&before);
        assert_eq!(&self.model[at.min(self.model.len())..][..stored], &written.buffer[..stored]);
        match written.result {
            Ok(()) | Err(Error::Cancelled) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What there is now counts: each byte is as it was before or as the model has it.
    fn take_over(&mut self, before: &[u8]) {
        let seen = read_all(self.file());
        let sizes = before.len().min(self.model.len())..=before.len().max(self.model.len());
        assert!(sizes.contains(&seen.len()), "{} of {sizes:?}", seen.len());
        assert_either(&seen, before, &self.model);
        self.model = seen;
    }

    /// What is written now, and is in the model from here on.
    fn data(&mut self, at: usize, len: usize) -> Vec<u8> {
        let data = sample(if len == 0 { 0 } else { len + self.n_changes });
        let end = if data.is_empty() { 0 } else { at + data.len() };
        self.model.resize(self.model.len().max(end), 0);
        if let Some(part) = self.model.get_mut(at..end) {
            part.copy_from_slice(&data);
        }
        data
    }

    fn write(&mut self, at: usize, len: usize) -> Result<(), Error> {
        let data = self.data(at, len);
        self.file().write_at(at as u64, &data)
    }

    fn read(
        &self,
        at: usize,
        len: usize,
        read: impl FnOnce(&File, u64, &mut [u8]) -> Result<usize, Error>,
    ) -> Result<(), Error> {
        let mut to = vec![0xAA; len];
        let n = read(self.file(), at as u64, &mut to)?;
        let end = (at + len).min(self.model.len()).max(at);
        assert_eq!(&to[..n], self.model.get(at..end).unwrap_or(&[]));
        Ok(())
    }

    fn hurt_cache(&mut self, file_id: FileId, lost: bool, at: usize) {
        let Some(cache) = &self.cache else { return };
        if lost {
            self.cache = Some(MemoryCache::new(MemoryOptions::default()));
        } else if let Some(mut stored) = cache.stored(file_id)
            && let Some(byte) = stored.get_mut(at)
        {
            *byte ^= 0x10;
            cache.set_stored(file_id, stored);
        }
    }
}

impl Subject<Audited> {
    /// What an independent reader finds on the server is the model, and the cache claims nothing
    /// but the server's own bytes.
    pub(super) fn check_stored(&self, hurt: bool) {
        let read = read_sealed(&stored(&self.server, &name()), &ROOT).unwrap();
        assert!(read.plaintext == self.model, "the independent reader reads something else");
        assert!(repeated_nonces(&read.blocks).is_empty());
        let mut differing = 0;
        self.file()
            .verify_cache(|_, report| differing += u32::from(report == CacheReport::Differs))
            .unwrap();
        assert!(differing == 0 || hurt, "{differing} blocks of the cache are not the server's");
    }
}

/// Zeros are behind the end.
pub(super) fn assert_either(read: &[u8], before: &[u8], after: &[u8]) {
    for (at, byte) in read.iter().enumerate() {
        let either = [before, after].map(|bytes| bytes.get(at).copied().unwrap_or(0));
        assert!(either.contains(byte), "byte {at} is {byte}, of {either:?}");
    }
}
