//! One file through several handles, which are as one: each operation is by another of them, and what is read
//! by any is what was written by any. With one path the handles stay open, and are for reading and
//! writing, appending, and direct; with several, which are the same file in several mounts, each
//! operation opens one of them anew and closes it, as several mounts promise no more than that.

use std::{
    collections::VecDeque,
    fmt::Debug,
    fs::{File, OpenOptions},
    io::Write,
    ops::Range,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::PathBuf,
    ptr, slice,
};

use fastrand::Rng;
use rustix::{
    fs::{Advice, FallocateFlags, OFlags, SeekFrom, fadvise, fallocate, seek},
    io::Errno,
    mm::{MapFlags, ProtFlags, mmap, munmap},
};

use crate::Failure;

/// What the file does not grow beyond.
const MOST_BYTES: u64 = 1 << 18;
const MOST_AT_ONCE: u64 = 1 << 16;
/// How many of the last operations are told when something is wrong.
const TRAIL: usize = 30;
const PAGE_BYTES: u64 = 4096;

pub(crate) fn exercise(seed: &str, n_operations: &str, paths: &[&str]) -> Result<(), Failure> {
    let mut subject = Subject {
        rng: Rng::with_seed(seed.parse()?),
        handles: Handles::open(paths)?,
        model: Vec::new(),
        trail: VecDeque::new(),
    };
    for number in 0..n_operations.parse()? {
        if let Err(failure) = subject.step() {
            subject.trail.iter().for_each(|did| eprintln!("{did}"));
            return Err(format!("operation {number} of seed {seed}: {failure}").into());
        }
    }
    Ok(())
}

enum Handles {
    /// They stay open.
    Kept { path: PathBuf, files: Vec<File> },
    /// One of the paths is opened for each operation.
    Opened(Vec<PathBuf>),
}

/// How the handles that stay open were opened, which decides about what is done with them.
const KINDS: [OFlags; 4] = [OFlags::empty(), OFlags::empty(), OFlags::APPEND, OFlags::DIRECT];

impl Handles {
    fn open(paths: &[&str]) -> Result<Handles, Failure> {
        File::create(paths[0])?;
        let paths: Vec<_> = paths.iter().map(PathBuf::from).collect();
        let [path] = &paths[..] else { return Ok(Handles::Opened(paths)) };
        let files = KINDS.iter().map(|kind| open(path, *kind)).collect::<Result<_, _>>()?;
        Ok(Handles::Kept { path: path.clone(), files })
    }

    /// One of them, and what kind it is of.
    fn any(&mut self, rng: &mut Rng) -> Result<(usize, File, OFlags), Failure> {
        match self {
            Handles::Kept { path, files } => {
                let index = rng.usize(..files.len());
                let kind = KINDS[index];
                if rng.u8(..) < 4 {
                    files[index] = open(path, kind)?;
                }
                // Another name of the same open file.
                Ok((index, files[index].try_clone()?, kind))
            }
            Handles::Opened(paths) => {
                let index = rng.usize(..paths.len());
                let kind = if rng.bool() { OFlags::empty() } else { OFlags::APPEND };
                Ok((index, open(&paths[index], kind)?, kind))
            }
        }
    }
}

fn open(path: &PathBuf, kind: OFlags) -> Result<File, Failure> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(kind.bits().cast_signed());
    Ok(options.open(path)?)
}

struct Subject {
    rng: Rng,
    handles: Handles,
    /// What must be in the file.
    model: Vec<u8>,
    trail: VecDeque<String>,
}

impl Subject {
    /// One operation, by whichever handle.
    fn step(&mut self) -> Result<(), Failure> {
        let (index, file, kind) = self.handles.any(&mut self.rng)?;
        let operation = self.rng.u8(..16);
        let range = match kind.contains(OFlags::DIRECT) {
            true => self.pages(),
            false => self.range(),
        };
        if self.trail.len() == TRAIL {
            self.trail.pop_front();
        }
        let did = (index, operation, &range, self.model.len());
        self.trail.push_back(format!("handle, operation, range, size: {did:?}"));
        match operation {
            0..4 => self.read(&file, range)?,
            4..7 if kind.contains(OFlags::APPEND) => self.append(&file, range)?,
            4..7 => self.write(&file, range)?,
            7 => self.read_mapped(&file, range)?,
            8 => self.write_mapped(&file, range)?,
            9 => self.resize(&file, range.end)?,
            10 => {
                self.fill(&file, range, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE)?
            }
            11 => self.fill(&file, range, FallocateFlags::ZERO_RANGE)?,
            12 => self.fill(&file, range, FallocateFlags::empty())?,
            13 => file.sync_data()?,
            14 => fadvise(&file, 0, None, Advice::DontNeed)?,
            _ => self.holes_are_zeros(&file)?,
        }
        same("the size", &file.metadata()?.len(), &(self.model.len() as u64))
    }

    fn range(&mut self) -> Range<u64> {
        let n_bytes = self.rng.u64(1..=MOST_AT_ONCE);
        let n_bytes = if self.rng.bool() { n_bytes } else { n_bytes % 500 + 1 };
        let start = self.rng.u64(..MOST_BYTES - n_bytes);
        start..start + n_bytes
    }

    fn pages(&mut self) -> Range<u64> {
        let n_pages = self.rng.u64(1..=MOST_AT_ONCE / PAGE_BYTES);
        let start = self.rng.u64(..MOST_BYTES / PAGE_BYTES - n_pages);
        start * PAGE_BYTES..(start + n_pages) * PAGE_BYTES
    }

    /// Of a range, what is in the file.
    fn inside(&self, range: &Range<u64>) -> Range<usize> {
        let inside = |at: u64| self.model.len().min(usize_of(at));
        inside(range.start)..inside(range.end)
    }

    fn random(&mut self, range: &Range<u64>) -> Vec<u8> {
        let mut data = vec![0; usize_of(range.end - range.start)];
        self.rng.fill(&mut data);
        data
    }

    /// Begins at the start of a page, as direct requests must.
    fn aligned(range: &Range<u64>) -> (Vec<u8>, Range<usize>) {
        let n_bytes = usize_of(range.end - range.start);
        let buffer = vec![0; n_bytes + usize_of(PAGE_BYTES)];
        let start = buffer.as_ptr().align_offset(usize_of(PAGE_BYTES));
        (buffer, start..start + n_bytes)
    }

    fn read(&mut self, file: &File, range: Range<u64>) -> Result<(), Failure> {
        let (mut buffer, place) = Subject::aligned(&range);
        let found = &mut buffer[place];
        let mut n_bytes = 0;
        while n_bytes < found.len() {
            match file.read_at(&mut found[n_bytes..], range.start + n_bytes as u64)? {
                0 => break,
                more => n_bytes += more,
            }
        }
        self.is_read(&found[..n_bytes], &range)
    }

    fn is_read(&self, found: &[u8], range: &Range<u64>) -> Result<(), Failure> {
        let expected = &self.model[self.inside(range)];
        same("bytes read", &found.len(), &expected.len())?;
        let differs = found.iter().zip(expected).position(|(found, expected)| found != expected);
        same("the first wrong byte", &differs, &None)
    }

    fn write(&mut self, file: &File, range: Range<u64>) -> Result<(), Failure> {
        let data = self.random(&range);
        let (mut buffer, place) = Subject::aligned(&range);
        buffer[place.clone()].copy_from_slice(&data);
        file.write_all_at(&buffer[place], range.start)?;
        self.expect(range, &data);
        Ok(())
    }

    fn append(&mut self, mut file: &File, range: Range<u64>) -> Result<(), Failure> {
        let size = self.model.len() as u64;
        if size + range.end - range.start > MOST_BYTES {
            return self.read(file, range);
        }
        let data = self.random(&range);
        file.write_all(&data)?;
        self.expect(size..size + data.len() as u64, &data);
        Ok(())
    }

    fn read_mapped(&mut self, file: &File, range: Range<u64>) -> Result<(), Failure> {
        let inside = self.inside(&range);
        if inside.is_empty() {
            return Ok(());
        }
        let found = mapped(file, inside, |bytes| bytes.to_vec())?;
        self.is_read(&found, &range)
    }

    fn write_mapped(&mut self, file: &File, range: Range<u64>) -> Result<(), Failure> {
        let inside = self.inside(&range);
        if inside.is_empty() {
            return Ok(());
        }
        let data = self.random(&(inside.start as u64..inside.end as u64));
        mapped(file, inside.clone(), |bytes| bytes.copy_from_slice(&data))?;
        self.model[inside].copy_from_slice(&data);
        Ok(())
    }

    fn resize(&mut self, file: &File, size: u64) -> Result<(), Failure> {
        file.set_len(size)?;
        self.model.resize(usize_of(size), 0);
        Ok(())
    }

    /// Makes zeros of a range, or keeps room for it.
    fn fill(&mut self, file: &File, range: Range<u64>, how: FallocateFlags) -> Result<(), Failure> {
        fallocate(file, how, range.start, range.end - range.start)?;
        if !how.contains(FallocateFlags::KEEP_SIZE) && usize_of(range.end) > self.model.len() {
            self.model.resize(usize_of(range.end), 0);
        }
        if !how.is_empty() {
            let inside = self.inside(&range);
            self.model[inside].fill(0);
        }
        Ok(())
    }

    /// What the file system takes for a hole has no data.
    fn holes_are_zeros(&self, file: &File) -> Result<(), Failure> {
        let size = self.model.len() as u64;
        let mut hole = 0;
        while hole < size {
            let data = match seek(file, SeekFrom::Data(hole)) {
                Err(Errno::NXIO) => size,
                found => found?,
            };
            let bytes = &self.model[self.inside(&(hole..data))];
            same("data in a hole", &bytes.iter().position(|byte| *byte != 0), &None)?;
            hole = if data < size { seek(file, SeekFrom::Hole(data))? } else { size };
        }
        Ok(())
    }

    fn expect(&mut self, range: Range<u64>, data: &[u8]) {
        let range = usize_of(range.start)..usize_of(range.end);
        if self.model.len() < range.end {
            self.model.resize(range.end, 0);
        }
        self.model[range].copy_from_slice(data);
    }
}

/// Runs something on a part of the file that is mapped for it, shared with all others.
fn mapped<R>(
    file: &File,
    range: Range<usize>,
    run: impl FnOnce(&mut [u8]) -> R,
) -> Result<R, Failure> {
    let (protection, end) = (ProtFlags::READ | ProtFlags::WRITE, range.end);
    // SAFETY: a new mapping, at an address that the kernel chooses.
    let start = unsafe { mmap(ptr::null_mut(), end, protection, MapFlags::SHARED, file, 0) }?;
    // SAFETY: `end` bytes are mapped, and in the file; nobody changes or cuts it meanwhile, since this
    // program is alone with it and has one thread.
    let bytes = unsafe { slice::from_raw_parts_mut(start.cast::<u8>(), end) };
    let result = run(&mut bytes[range]);
    // SAFETY: it is the mapping from above, and no reference into it is left.
    unsafe { munmap(start, end) }?;
    Ok(result)
}

fn same<T: Debug + PartialEq>(what: &str, found: &T, expected: &T) -> Result<(), Failure> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}: {found:?}, expected {expected:?}").into())
}

fn usize_of(at: u64) -> usize {
    usize::try_from(at).expect("files are small here")
}
