//! A flat file that is an open file: `pread`, `pwritev`, `fallocate`, `ftruncate`.

use std::{
    borrow::Borrow,
    fs::File,
    io::{self, IoSlice},
    ops::Range,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, MetadataExt},
    },
    path::Path,
};

use rustix::{
    fs::{
        AtFlags, CWD, FallocateFlags, Mode, OFlags, SeekFrom, fallocate, fstat, linkat, open, seek,
    },
    io::{Errno, pwritev},
};

use super::options::MAX_SEGMENTS;
use crate::flat::{Flat, Through};

/// As [`crate::Target::identity`]: device and inode. One that cannot be asked is like no other.
pub(super) fn identity(file: &File) -> u128 {
    match fstat(file) {
        Ok(stat) => (u128::from(stat.st_dev) << 64) | u128::from(stat.st_ino),
        Err(_) => std::ptr::from_ref(file).addr() as u128,
    }
}

/// The inode of an identity.
pub(super) fn inode_of(identity: u128) -> u64 {
    let [.., a, b, c, d, e, f, g, h] = identity.to_be_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// An open file that nobody else changes meanwhile: how long it is need not be asked.
#[derive(Debug)]
pub(super) struct Own<F> {
    file: F,
    /// None where something failed that may have changed it.
    bytes: Option<u64>,
}

impl<'a> Own<&'a File> {
    pub(super) fn of_length(file: &'a File, bytes: u64) -> Own<&'a File> {
        Own { file, bytes: Some(bytes) }
    }
}

impl Own<File> {
    pub(super) fn new(file: File) -> io::Result<Own<File>> {
        let bytes = Some(Flat::len(&&file)?);
        Ok(Own { file, bytes })
    }
}

impl<F: Borrow<File>> Flat for Own<F> {
    fn len(&self) -> io::Result<u64> {
        self.bytes.map_or_else(|| self.file.borrow().len(), Ok)
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        Flat::read_at(&self.file.borrow(), at, into)
    }

    fn write_at(&mut self, at: u64, pieces: &mut [IoSlice<'_>]) -> Through {
        let known = self.bytes.take();
        let through = Flat::write_at(&mut self.file.borrow(), at, pieces);
        if through.error.is_none() {
            self.bytes = known.map(|bytes| bytes.max(at + through.bytes));
        }
        through
    }

    fn punch(&mut self, stored: Range<u64>) -> io::Result<bool> {
        self.file.borrow().punch(stored)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.bytes = None;
        Flat::set_len(&mut self.file.borrow(), len)?;
        self.bytes = Some(len);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.borrow().sync()
    }
}

/// Makes a file without a name in a directory, which goes when it is closed; `None` where the file
/// system has none.
pub(super) fn unnamed(dir: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match open(dir, flags, Mode::from_raw_mode(0o666)) {
        Ok(file) => Ok(Some(file.into())),
        // What an older kernel takes the flag for is the directory itself.
        Err(Errno::INVAL | Errno::ISDIR | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Gives a file without a name one that there is not yet; `false` where that cannot be done.
pub(super) fn link(file: &File, path: &Path) -> io::Result<bool> {
    let linked = linkat(file, "", CWD, path, AtFlags::EMPTY_PATH).or_else(|error| match error {
        // Of old, only the superuser may.
        Errno::NOENT => {
            let here = format!("/proc/self/fd/{}", file.as_raw_fd());
            linkat(CWD, here, CWD, path, AtFlags::SYMLINK_FOLLOW)
        }
        error => Err(error),
    });
    match linked {
        Ok(()) => Ok(true),
        Err(Errno::NOENT | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM | Errno::XDEV) => {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// The same; `false` also where there is something of that name.
pub(super) fn link_new(file: &File, path: &Path) -> io::Result<bool> {
    match link(file, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        linked => linked,
    }
}

/// Where the next bytes that are not a hole begin, from `at` on; `None` if there are none. Where
/// the system cannot say, at once.
pub(super) fn next_data(file: &File, at: u64) -> io::Result<Option<u64>> {
    match seek(file, SeekFrom::Data(at)) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NXIO) => Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(at)),
        Err(error) => Err(error.into()),
    }
}

/// What a file takes on the disk, in bytes; nothing, if it cannot be asked.
pub(super) fn taken_bytes(file: &File) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.blocks() * 512)
}

/// Makes zeros of a range of a file and gives its room back; `false` if this cannot be done here.
///
/// Room goes back by whole pages. One that the range shares with others goes, too, if all that the
/// others have in it is zeros: else what was dropped run by run would leave a page at each seam.
pub(super) fn give_back(flat: &mut dyn Flat, stored: Range<u64>) -> io::Result<bool> {
    let mut pages = stored.clone();
    let before = stored.start - stored.start % PAGE_BYTES..stored.start;
    if are_zeros(flat, &before)? {
        pages.start = before.start;
    }
    let behind = stored.end..stored.end.next_multiple_of(PAGE_BYTES);
    if are_zeros(flat, &behind)? {
        pages.end = behind.end;
    }
    if pages.is_empty() { Ok(true) } else { flat.punch(pages) }
}

/// Whether part of a page is zeros, or behind the end.
fn are_zeros(flat: &dyn Flat, part: &Range<u64>) -> io::Result<bool> {
    let mut page = [0; PAGE_LEN];
    let n_bytes = usize::try_from(part.end - part.start).unwrap_or(PAGE_LEN);
    flat.read_at(part.start, &mut page[..n_bytes])?;
    Ok(page.iter().all(|byte| *byte == 0))
}

/// What most file systems give room in.
pub(super) const PAGE_BYTES: u64 = PAGE_LEN as u64;
const PAGE_LEN: usize = 4096;

impl Flat for &File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut n = 0;
        while n < into.len() {
            match FileExt::read_at(*self, &mut into[n..], at + n as u64) {
                Ok(0) => break,
                Ok(more) => n += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(n)
    }

    fn write_at(&mut self, at: u64, pieces: &mut [IoSlice<'_>]) -> Through {
        let mut rest = pieces;
        let mut bytes = 0;
        while !rest.is_empty() {
            let n_pieces = rest.len().min(MAX_SEGMENTS);
            match pwritev(*self, &rest[..n_pieces], at + bytes) {
                Ok(0) => {
                    let error = Some(io::ErrorKind::WriteZero.into());
                    return Through { bytes, error };
                }
                Ok(n) => {
                    bytes += n as u64;
                    IoSlice::advance_slices(&mut rest, n);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Through { bytes, error: Some(error.into()) },
            }
        }
        Through { bytes, error: None }
    }

    fn punch(&mut self, stored: Range<u64>) -> io::Result<bool> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        loop {
            match fallocate(*self, flags, stored.start, stored.end - stored.start) {
                Ok(()) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}
