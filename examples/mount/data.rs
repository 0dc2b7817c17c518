//! Reading and writing open files, and what else there is to do with what is in them.

use std::{cell::RefCell, ops::Range, sync::Arc};

use fuser::FileHandle;
use rustix::{
    fs::{FallocateFlags, OFlags, SeekFrom, fallocate, seek},
    io::Errno,
};
use sealback::{Error, File, crypto::Geometry};
use zeroize::Zeroizing;

use crate::{
    appending::Appending, errors::Result, handles::OpenFile, inodes::Inode, lower, tree::Tree,
};

/// How something is to be written.
#[derive(Clone, Copy)]
pub(crate) struct How {
    /// What the file was opened with.
    pub(crate) flags: OFlags,
    /// The kernel's page cache writes, which tells of times by itself.
    pub(crate) from_page_cache: bool,
    /// Whoever writes may not leave a file that runs as somebody else.
    pub(crate) drops_privileges: bool,
}

impl Tree {
    /// Opens a file.
    pub(crate) fn open(&self, inode: Arc<Inode>, flags: OFlags) -> Result<FileHandle> {
        if !inode.kind.is_file() {
            return Err(Errno::OPNOTSUPP);
        }
        let file = self.use_content(&inode)?;
        Ok(self.files.insert(OpenFile::new(inode, file, flags)))
    }

    /// Reads, and hands what was read to `reply`: fewer bytes than asked for only at the end.
    pub(crate) fn read(
        &self,
        handle: FileHandle,
        position: u64,
        n_bytes: u32,
        flags: OFlags,
        reply: impl FnOnce(Result<&[u8]>),
    ) {
        thread_local! {
            static BUFFER: RefCell<Zeroizing<Vec<u8>>> = RefCell::default();
        }
        BUFFER.with_borrow_mut(|buffer| {
            let read = self.files.get(handle).and_then(|open| {
                let n_bytes = n_bytes as usize;
                if buffer.len() < n_bytes {
                    // A new one, so that the old one is wiped.
                    *buffer = Zeroizing::new(vec![0; n_bytes]);
                }
                let to = &mut buffer[..n_bytes];
                let read = match flags.contains(OFlags::DIRECT) {
                    true => open.file.read_direct(position, to),
                    false if n_bytes >= READ_ONCE_BYTES => open.file.read_once(position, to),
                    false => open.file.read_at(position, to),
                };
                read.map_err(|error| self.refused(&open.inode, &error))
            });
            reply(read.map(|n_bytes| &buffer[..n_bytes]));
        });
    }

    /// Writes `data`, and returns how much of it was written: all but where something fails behind that. With
    /// several mounts, what is appended goes to where the file ends now.
    pub(crate) fn write(
        &self,
        handle: FileHandle,
        position: u64,
        data: &[u8],
        how: How,
    ) -> Result<u32> {
        let open = self.files.get(handle)?;
        if how.drops_privileges {
            self.drop_privileges(&open.inode)?;
        }
        let refused = |error| self.refused(&open.inode, &error);
        let write_at = || open.file.write_at(position, data).map(|()| data.len()).map_err(refused);
        let written = match &self.appending {
            _ if how.from_page_cache => write_at(),
            Some(appending) if open.appends(how.flags) => self.append(appending, &open, data),
            _ if how.flags.contains(OFlags::DIRECT) => {
                write_direct(&open.file, position, data).map_err(refused)
            }
            _ => write_at(),
        };
        let content = &open.inode.content;
        match how.from_page_cache {
            true => content.written(),
            false => content.modified(None),
        }
        if how.from_page_cache && written.is_err() {
            content.has_refused();
        }
        written.map(|n_bytes| u32::try_from(n_bytes).unwrap_or(u32::MAX))
    }

    /// Writes behind the end, with what others have appended: nobody else of this tree appends meanwhile, in
    /// whatever mount. What cannot be stored is not kept, since behind the end is somebody else's place then.
    fn append(&self, appending: &Appending, open: &OpenFile, data: &[u8]) -> Result<usize> {
        let _turn = appending.turn()?;
        let refused = |error| self.refused(&open.inode, &error);
        open.file.revalidate().map_err(refused)?;
        write_direct(&open.file, open.file.size(), data).map_err(refused)
    }

    /// Waits until what was written is on the server.
    pub(crate) fn sync(&self, handle: FileHandle) -> Result<()> {
        let open = self.files.get(handle)?;
        open.drop_what_is_told();
        self.sync_content(&open.inode, &open.file)
    }

    /// A descriptor is closed, with several mounts: others are to see what was written.
    pub(crate) fn flush(&self, handle: FileHandle) -> Result<()> {
        let open = self.files.get(handle)?;
        match open.file.is_unwritten() {
            true => self.sync(handle),
            false => Ok(()),
        }
    }

    /// Closes a file.
    pub(crate) fn release(self: &Arc<Tree>, handle: FileHandle) {
        let Some(open) = self.files.remove(handle) else { return };
        let inode = open.inode.clone();
        drop(open);
        self.let_go(&inode);
    }

    /// Makes a file longer or shorter.
    pub(crate) fn resize(self: &Arc<Tree>, inode: &Arc<Inode>, size: u64) -> Result<()> {
        self.with_content(inode, |file| {
            file.set_len(size).map_err(|error| self.refused(inode, &error))?;
            inode.content.modified(None);
            Ok(())
        })
    }

    /// Keeps room for a range, or makes zeros of it.
    pub(crate) fn allocate(
        &self,
        handle: FileHandle,
        (position, n_bytes): (u64, u64),
        mode: FallocateFlags,
        may_keep_privileges: bool,
    ) -> Result<()> {
        let open = self.files.get(handle)?;
        if !may_keep_privileges {
            self.drop_privileges(&open.inode)?;
        }
        let end = position.checked_add(n_bytes).filter(|end| *end <= i64::MAX as u64);
        let end = end.ok_or(Errno::FBIG)?;
        let refused = |error| self.refused(&open.inode, &error);
        let zeroes = FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE;
        let known = zeroes | FallocateFlags::KEEP_SIZE;
        if !known.contains(mode) {
            return Err(Errno::OPNOTSUPP);
        }
        let file = &open.file;
        if mode.intersects(zeroes) {
            file.punch(position..end).map_err(refused)?;
        }
        if !mode.contains(FallocateFlags::PUNCH_HOLE) {
            reserve(&open.inode, file, position, end)?;
        }
        if !mode.contains(FallocateFlags::KEEP_SIZE) && end > file.size() {
            file.set_len(end).map_err(refused)?;
        }
        open.inode.content.modified(None);
        Ok(())
    }

    /// Where the next data, or the next hole, begins. Not where the kernel's page cache may have data
    /// that nobody here knows of.
    pub(crate) fn seek(&self, handle: FileHandle, position: u64, whence: Whence) -> Result<u64> {
        if !self.options.shared {
            // The kernel then takes all of the file for data, which is never wrong.
            return Err(Errno::NOSYS);
        }
        let open = self.files.get(handle)?;
        let size = open.file.size();
        if position >= size {
            return Err(Errno::NXIO);
        }
        if open.file.is_unwritten() {
            open.file.sync().map_err(|error| self.refused(&open.inode, &error))?;
        }
        let stored = lower::open(&open.inode.reference, OFlags::RDONLY)?;
        let geometry = geometry_of(&open.file)?;
        let first = geometry.block_at(position);
        match whence {
            Whence::Data => match next_data(&stored, &geometry, first)? {
                None => Err(Errno::NXIO),
                Some(block) => Ok(geometry.block_start(block).max(position)),
            },
            Whence::Hole => {
                let hole = next_hole(&stored, &geometry, first..geometry.n_blocks(size))?;
                Ok(hole.map_or(size, |block| geometry.block_start(block)).clamp(position, size))
            }
        }
    }
}

/// Writes past the page cache: an error is told if nothing could be written, else how much was.
fn write_direct(file: &File, position: u64, data: &[u8]) -> std::result::Result<usize, Error> {
    let written = file.write_direct(position, Zeroizing::new(data.to_vec()));
    match (usize::try_from(written.bytes).unwrap_or(data.len()), written.result) {
        (0, Err(error)) => Err(error),
        (n_bytes, _) => Ok(n_bytes),
    }
}

/// The first block from `block` on that something is stored of: as the lower file tells it, which is by pages
/// of its own.
fn next_data(stored: &std::fs::File, geometry: &Geometry, block: u64) -> Result<Option<u64>> {
    match seek(stored, SeekFrom::Data(geometry.stored_start(block))) {
        Ok(found) => Ok(Some((found - geometry.stored_start(0)) / geometry.stride_bytes())),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The first of some blocks that nothing is stored of: asks once for each stretch of the lower file, however
/// many blocks that has.
fn next_hole(
    stored: &std::fs::File,
    geometry: &Geometry,
    mut blocks: Range<u64>,
) -> Result<Option<u64>> {
    while let Some(block) = blocks.clone().next() {
        if next_data(stored, geometry, block)? != Some(block) {
            return Ok(Some(block));
        }
        let hole = seek(stored, SeekFrom::Hole(geometry.stored_start(block)))?;
        // One within a block makes no hole of it.
        let behind = (hole - geometry.stored_start(0)).div_ceil(geometry.stride_bytes());
        blocks.start = behind.max(block + 1);
    }
    Ok(None)
}

/// The kernel keeps what it reads; so much at once need not be kept here as well. Of less, what else is in the
/// same block is likely to be asked for soon.
const READ_ONCE_BYTES: usize = 128 << 10;

/// What is looked for.
#[derive(Clone, Copy)]
pub(crate) enum Whence {
    Data,
    Hole,
}

/// Keeps room below for what is going to be stored of a range.
fn reserve(inode: &Inode, file: &File, position: u64, end: u64) -> Result<()> {
    let geometry = geometry_of(file)?;
    let blocks = geometry.blocks_covering(position..end);
    let stored = geometry.stored_start(blocks.start)..geometry.stored_start(blocks.end);
    let lower = lower::open(&inode.reference, OFlags::RDWR)?;
    fallocate(lower, FallocateFlags::KEEP_SIZE, stored.start, stored.end - stored.start)
}

fn geometry_of(file: &File) -> Result<Geometry> {
    Geometry::new(file.block_bytes()).map_err(|_| Errno::IO)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn data_and_holes_are_those_of_whole_blocks() {
        let geometry = Geometry::new(64 << 10).unwrap();
        let stored = tempfile::tempfile().unwrap();
        // Blocks 0, 1 and half of 2, the middle of block 5, and nothing from there to block 8.
        let block_bytes = usize::try_from(geometry.stride_bytes()).unwrap();
        stored.write_all_at(&vec![1; 2 * block_bytes + 30_000], geometry.stored_start(0)).unwrap();
        stored.write_all_at(b"some", geometry.stored_start(5) + 30_000).unwrap();
        stored.set_len(geometry.stored_start(9)).unwrap();
        let holes = (0..10).map(|block| next_hole(&stored, &geometry, block..9).unwrap());
        let hole = |block| if block < 9 { Some(block) } else { None };
        assert_eq!(holes.collect::<Vec<_>>(), [3, 3, 3, 3, 4, 6, 6, 7, 8, 9].map(hole));
        let data = (0..9).map(|block| next_data(&stored, &geometry, block).unwrap());
        let found = [0, 1, 2, 5, 5, 5].map(Some).into_iter().chain([None; 3]);
        assert_eq!(data.collect::<Vec<_>>(), found.collect::<Vec<_>>());
    }
}
