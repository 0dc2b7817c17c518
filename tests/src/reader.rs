//! An independent reader of "The sealed file, format 1", written from the specification alone: it
//! shares no line with the library, so what both agree on is what the text says.
//!
//! It reads flat files at rest, in one pass. It never reads a block again in the hope that a
//! writer was at work, has no recovery for a torn header, and expects no given file id.

use std::{fs::File, io::Read, ops::Range, path::Path};

use aes::{Aes256, cipher::BlockCipherEncrypt, cipher::KeyInit};
use aes_gcm::{AeadInOut, Aes256Gcm};

/// Bytes before block 0, and where the second prologue stands.
const HEADER: usize = 8192;
const HALF: usize = 4096;
/// Where the slots of the even and of the odd generations stand, and how long each is.
const SLOTS: [usize; 2] = [512, HALF + 512];
const SLOT: usize = 512;
/// Bytes of a prologue, and of what stands before a block's ciphertext.
const PROLOGUE: usize = 64;
const PREFIX: usize = 48;
/// The flag of a cut not yet finished: bit 1, counted from 0.
const CUT_PENDING: u64 = 1 << 1;

type Key = [u8; 32];

/// Returns the error unless the condition holds.
macro_rules! ensure {
    ($holds:expr, $($error:tt)+) => { $holds.then_some(()).ok_or_else(|| format!($($error)+))? };
}

/// One block as the reader found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadBlock {
    /// Its number in the file.
    pub block: u64,
    /// Its stored nonce; zeros in a hole.
    pub nonce: [u8; 24],
    /// How many bytes were sealed in it, which may lie beyond the file's size; 0 in a hole.
    pub len: u32,
    /// The generation it was sealed for; 0 in a hole.
    pub seal_gen: u32,
    /// Whether its prefix is all zeros.
    pub hole: bool,
}

/// A sealed file as the reader found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadFile {
    /// The random name of the file, from the prologue.
    pub file_id: [u8; 32],
    /// Plaintext bytes in a full block.
    pub block_bytes: u64,
    /// Generation of the slot that counts.
    pub generation: u64,
    /// Plaintext bytes in the file.
    pub size: u64,
    /// How often the size has gone down.
    pub cuts: u64,
    /// The blocks that may be missing or short.
    pub holes: Range<u64>,
    /// The file's contents; left empty by [`read_sealed_file`].
    pub plaintext: Vec<u8>,
    /// Every block below the file's size, in order.
    pub blocks: Vec<ReadBlock>,
}

/// Reads a whole flat sealed file, given as all its stored bytes, under a root key.
///
/// # Errors
/// A sentence naming the block or the header field at fault.
pub fn read_sealed(stored: &[u8], root_key: &[u8; 32]) -> Result<ReadFile, String> {
    let mut plaintext = Vec::new();
    let file = read_from(stored, root_key, |_, bytes| plaintext.extend_from_slice(bytes))?;
    Ok(ReadFile { plaintext, ..file })
}

/// Reads a flat sealed file from disk, one block in memory at a time (and a record of each block),
/// and calls `sink` with the number and the plaintext of every block that opens, in order.
///
/// # Errors
/// A sentence naming the block or the header field at fault, or saying why the file could not be
/// read. Blocks before the one at fault have gone to `sink` by then.
pub fn read_sealed_file(
    path: &Path,
    root_key: &[u8; 32],
    sink: impl FnMut(u64, &[u8]),
) -> Result<ReadFile, String> {
    let file = File::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
    read_from(file, root_key, sink)
}

/// Nonces that occur more than once among blocks, each once and in order; holes have none.
pub fn repeated_nonces(blocks: &[ReadBlock]) -> Vec<[u8; 24]> {
    let mut nonces: Vec<_> = blocks.iter().filter(|b| !b.hole).map(|b| b.nonce).collect();
    nonces.sort_unstable();
    nonces.chunk_by(|a, b| a == b).filter(|same| same.len() > 1).map(|same| same[0]).collect()
}

fn read_from(
    mut source: impl Read,
    root_key: &Key,
    mut sink: impl FnMut(u64, &[u8]),
) -> Result<ReadFile, String> {
    let mut head = [0; HEADER];
    source.read_exact(&mut head).map_err(|e| format!("header: cut short: {e}"))?;
    let (mut file, content_key) = read_header(&head, root_key)?;
    let stride = file.block_bytes + PREFIX as u64;
    let mut buf = Vec::new();
    for i in 0..file.size.div_ceil(file.block_bytes) {
        buf.clear();
        let read = source.by_ref().take(stride).read_to_end(&mut buf);
        ensure!(read.is_ok(), "block {i}: {read:?}");
        let block = open_block(&file, &content_key, i, &mut buf)?;
        // A hole reads as zeros, and so does what lies behind a short block.
        buf.truncate(PREFIX + block.len as usize);
        buf.resize(PREFIX + visible(&file, i), 0);
        sink(i, &buf[PREFIX..]);
        file.blocks.push(block);
    }
    Ok(file)
}

/// Bytes of block `i` that lie below the file's size, at most a MiB.
fn visible(file: &ReadFile, i: u64) -> usize {
    let bytes = file.block_bytes.min(file.size - i * file.block_bytes);
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Opens in place block `i`, of which `stored` holds as much as the file does.
fn open_block(f: &ReadFile, key: &Key, i: u64, stored: &mut [u8]) -> Result<ReadBlock, String> {
    let have = stored.len();
    ensure!(have >= PREFIX, "block {i}: cut short, {have} bytes are left of it");
    let nonce = field(stored, 0);
    let len = u32::from_le_bytes(field(stored, 40));
    let seal_gen = u32::from_le_bytes(field(stored, 44));
    let hole = zero(&stored[..PREFIX]);
    if !hole {
        let most = f.block_bytes;
        ensure!(len > 0 && u64::from(len) <= most, "block {i}: len {len} is not of 1 to {most}");
        let end = PREFIX + len as usize;
        ensure!(have >= end, "block {i}: cut short, {have} bytes are left of it");
        let aad = [&i.to_le_bytes()[..], &stored[40..PREFIX]].concat();
        let opened = open(key, &nonce, &aad, field(stored, 24), &mut stored[PREFIX..end]);
        ensure!(opened, "block {i}: altered or torn");
        let most = f.generation.saturating_add(1);
        ensure!(u64::from(seal_gen) <= most, "block {i}: seal_gen {seal_gen}: header put back");
    }
    let allowed = len as usize >= visible(f, i) || f.holes.contains(&i);
    ensure!(allowed, "block {i}: missing or put back (hole: {hole}, len {len})");
    Ok(ReadBlock { block: i, nonce, len, seal_gen, hole })
}

/// Reads the header; the second value is the content key.
fn read_header(head: &[u8; HEADER], root_key: &Key) -> Result<(ReadFile, Key), String> {
    let block_bytes = check_prologue(head)?;
    let prologue: [u8; PROLOGUE] = field(head, 0);
    let file_id: [u8; 32] = field(head, 16);
    let slots = SLOTS.map(|at| &head[at..at + SLOT]);
    let id = derive("root key id", &[root_key, &file_id]);
    let wrapping_key = derive("file key wrapping", &[root_key]);
    let ours = |slot: &[u8]| slot[24..40] == id[..16];
    let unwrap = |slot: &[u8]| {
        let mut key: Key = field(slot, 64);
        let opened = open(&wrapping_key, &field(slot, 40), &prologue, field(slot, 96), &mut key);
        opened.then_some(key)
    };
    ensure!(!slots.into_iter().all(zero), "header: no valid slot, both are zero");
    ensure!(slots.into_iter().any(ours), "header: key_id is of another key");
    let file_key = slots.into_iter().filter(|slot| ours(slot)).find_map(unwrap);
    let file_key = file_key.ok_or("header: wrapped file key altered")?;
    let header_key = derive("file header key", &[&file_key, &prologue]);
    let slot = pick_slot(slots, &header_key, &prologue)?;
    ensure!(ours(slot), "header: key_id of the newer slot is of another key");
    ensure!(unwrap(slot) == Some(file_key), "header: wrapped file key is not the other slot's");
    let number = |at| u64::from_le_bytes(field(slot, at));
    let (generation, size, flags, cuts) = (number(0), number(8), number(16), number(112));
    let holes = number(120)..number(128);
    ensure!(flags & !CUT_PENDING == 0, "header: flags {flags:#x} not known");
    ensure!(zero(&slot[136..480]), "header: slot bytes 136 to 480 are not zero");
    ensure!(size <= 1 << 60, "header: size {size} is beyond 2^60");
    ensure!(holes == (0..0) || !holes.is_empty(), "header: hole_from, hole_to: {holes:?}");
    let (plaintext, blocks) = (vec![], vec![]);
    let file = ReadFile { file_id, block_bytes, generation, size, cuts, holes, plaintext, blocks };
    Ok((file, derive("file content key", &[&file_key, &prologue])))
}

/// Checks both prologues and all that must be zero around the slots; gives the block size.
fn check_prologue(head: &[u8; HEADER]) -> Result<u64, String> {
    let [version, suite] = [8, 10].map(|at| u16::from_le_bytes(field(head, at)));
    let shift = head[12];
    ensure!(head[..8] == *b"SEALBACK", "header: magic is not SEALBACK");
    ensure!(version == 1, "header: format version {version} not known");
    ensure!(suite == 1, "header: cipher suite {suite} not known");
    ensure!((12..=20).contains(&shift), "header: block_shift {shift} is not of 12 to 20");
    ensure!(head[..PROLOGUE] == head[HALF..HALF + PROLOGUE], "header: the two prologues differ");
    for range in [13..16, 52..512, 1024..HALF, HALF + PROLOGUE..SLOTS[1], SLOTS[1] + SLOT..HEADER] {
        ensure!(zero(&head[range.clone()]), "header: padding within bytes {range:?} is not zero");
    }
    Ok(1 << shift)
}

/// Checks both slots' MACs and generations, the even ones' first; gives the slot that counts.
fn pick_slot<'a>(slots: [&'a [u8]; 2], key: &Key, prologue: &[u8]) -> Result<&'a [u8], String> {
    let [even, odd] = slots;
    let [g, h] = slots.map(|slot| u64::from_le_bytes(field(slot, 0)));
    let valid = slots.map(|slot| {
        let mac = blake3::keyed_hash(key, &[prologue, &slot[..480]].concat());
        mac == blake3::Hash::from_bytes(field(slot, 480))
    });
    ensure!(!valid[0] || g > 0 && g % 2 == 0, "header: generation {g} in the even slot");
    ensure!(!valid[1] || h % 2 == 1, "header: generation {h} in the odd slot");
    ensure!(valid != [false; 2], "header: no valid slot, both MACs fail");
    if valid == [true; 2] {
        ensure!(g.abs_diff(h) == 1, "header: generations {g} and {h} do not differ by 1");
        return Ok(if g > h { even } else { odd });
    }
    let (one, other, generation) = if valid[0] { (even, odd, g) } else { (odd, even, h) };
    ensure!(zero(other), "header torn or altered: the MAC fails beside generation {generation}");
    ensure!(generation == 1, "header: slot of zeros beside generation {generation}");
    Ok(one)
}

fn zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&b| b == 0)
}

/// The `N` bytes at `at`; callers stay within `bytes`.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}

fn derive(purpose: &str, material: &[&[u8]]) -> Key {
    blake3::derive_key(&format!("sealback 2026-11-23 v1 {purpose}"), &material.concat())
}

/// XAES-256-GCM: the AES-256-GCM cipher and nonce that a 256-bit key and a 192-bit nonce stand for.
fn xaes(key: &Key, nonce: &[u8; 24]) -> (Aes256Gcm, [u8; 12]) {
    let aes = Aes256::new(&(*key).into());
    let encrypt = |plain: u128| {
        let mut block = plain.to_be_bytes().into();
        aes.encrypt_block(&mut block);
        u128::from_be_bytes(block.into())
    };
    let l = encrypt(0);
    let k1 = (l << 1) ^ ((l >> 127) * 0x87);
    let halves = [1, 2].map(|counter| {
        let m = [&[0, counter, b'X', 0], &nonce[..12]].concat();
        encrypt(u128::from_be_bytes(field(&m, 0)) ^ k1).to_be_bytes()
    });
    let derived: Key = field(&halves.concat(), 0);
    (Aes256Gcm::new(&derived.into()), field(nonce, 12))
}

/// Decrypts `text` in place; false if the tag does not fit, and then `text` is worthless.
fn open(key: &Key, nonce: &[u8; 24], aad: &[u8], tag: [u8; 16], text: &mut [u8]) -> bool {
    let (gcm, nonce) = xaes(key, nonce);
    gcm.decrypt_inout_detached(&nonce.into(), aad, text.into(), &tag.into()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const B: usize = 4096;
    const ROOT: Key = [5; 32];
    const FILE_KEY: Key = [6; 32];

    fn prologue() -> Vec<u8> {
        [&b"SEALBACK\x01\0\x01\0\x0c\0\0\0"[..], &[7; 32], &[0; 16]].concat()
    }

    fn seal(key: &Key, nonce: [u8; 24], aad: &[u8], text: &[u8]) -> (Vec<u8>, [u8; 16]) {
        let ((gcm, short), mut text) = (xaes(key, &nonce), text.to_vec());
        let tag = gcm.encrypt_inout_detached(&short.into(), aad, text.as_mut_slice().into());
        (text, tag.unwrap().into())
    }

    /// Puts the slot of `generation` into a header, wrapped under `root`.
    fn put_slot(file: &mut [u8], root: &Key, [generation, size, flags, from, to]: [u64; 5]) {
        let id = derive("root key id", &[root, &[7; 32]]);
        let wrapping_key = derive("file key wrapping", &[root]);
        let (key, tag) = seal(&wrapping_key, [9; 24], &prologue(), &FILE_KEY);
        let mut slot = [generation, size, flags].map(u64::to_le_bytes).concat();
        slot.extend([&id[..16], &[9; 24], &key, &tag].concat());
        slot.extend([3, from, to].map(u64::to_le_bytes).concat());
        slot.resize(480, 0);
        let header_key = derive("file header key", &[&FILE_KEY, &prologue()]);
        let mac = blake3::keyed_hash(&header_key, &[prologue(), slot.clone()].concat());
        let at = if generation % 2 == 0 { 512 } else { 4608 };
        file[at..at + 512].copy_from_slice(&[&slot[..], mac.as_bytes()].concat());
    }

    fn block(i: u8, text: &[u8], seal_gen: u32) -> Vec<u8> {
        let content_key = derive("file content key", &[&FILE_KEY, &prologue()]);
        let nonce = field(&[&[8; 23][..], &[i]].concat(), 0);
        let stamp = [u32::try_from(text.len()).unwrap(), seal_gen].map(u32::to_le_bytes).concat();
        let aad = [&u64::from(i).to_le_bytes(), &stamp[..]].concat();
        let (text, tag) = seal(&content_key, nonce, &aad, text);
        [&nonce[..], &tag, &stamp, &text].concat()
    }

    /// A file of generation 2 with a block for each text, or a hole if it is empty.
    fn write(texts: &[&[u8]], size: usize, flags: u64, [from, to]: [u64; 2]) -> Vec<u8> {
        let mut file = [prologue(), vec![0; 4032], prologue(), vec![0; 4032]].concat();
        put_slot(&mut file, &ROOT, [1, 0, 0, 0, 0]);
        put_slot(&mut file, &ROOT, [2, size as u64, flags, from, to]);
        for (i, text) in (0..).zip(texts) {
            file.resize(8192 + usize::from(i) * (B + 48), 0);
            file.extend(if text.is_empty() { vec![0; 48] } else { block(i, text, 2) });
        }
        file
    }

    #[track_caller]
    fn refused(stored: &[u8], because: &str) {
        let error = read_sealed(stored, &ROOT).unwrap_err();
        assert!(error.contains(because), "{error}, not {because}");
    }

    #[test]
    fn xaes_gives_the_published_vectors() {
        let (nonce, aad) = (*b"ABCDEFGHIJKLMNOPQRSTUVWX", "c2sp.org/XAES-256-GCM");
        for (key, aad, text, tag) in [
            (1, "", 0xce546ef63c9cc60765923609_u128, 0xb33a9a1974e96e52daf2fcf7075e2271_u128),
            (3, aad, 0x986ec1832593df5443a17943, 0x7fd083bf3fdb41abd740a21f71eb769d),
        ] {
            let sealed = seal(&[key; 32], nonce, aad.as_bytes(), b"XAES-256-GCM");
            assert_eq!(sealed, (text.to_be_bytes()[4..].to_vec(), tag.to_be_bytes()));
        }
    }

    #[test]
    fn files_of_every_edge_size_open() {
        let path = std::env::temp_dir().join(format!("sealback-reader-{}", std::process::id()));
        let text: Vec<u8> = (0..=250).cycle().take(3 * B).collect();
        for size in [0, 1, B - 1, B, B + 1, 2 * B, 3 * B] {
            let stored = write(&text[..size].chunks(B).collect::<Vec<_>>(), size, 0, [0, 0]);
            let file = read_sealed(&stored, &ROOT).unwrap();
            assert_eq!(file.plaintext, text[..size]);
            assert_eq!((file.block_bytes, file.generation, file.cuts), (B as u64, 2, 3));
            assert_eq!((file.file_id, file.size, &file.holes), ([7; 32], size as u64, &(0..0)));
            assert!(repeated_nonces(&file.blocks).is_empty());
            assert_eq!(repeated_nonces(&file.blocks.repeat(2)).len(), size.div_ceil(B));
            std::fs::write(&path, &stored).unwrap();
            let mut seen = vec![];
            let read = read_sealed_file(&path, &ROOT, |_, bytes| seen.extend_from_slice(bytes));
            assert_eq!(ReadFile { plaintext: seen, ..read.unwrap() }, file);
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn changed_bytes_and_files_cut_short_are_refused() {
        let mut stored = write(&[&[1; B], b"end"], B + 3, 0, [0, 2]);
        for at in 0..stored.len() {
            let place = ["header", "block 0", "block 1"][at.saturating_sub(4048) / (B + 48)];
            stored[at] ^= 1;
            refused(&stored, place);
            stored[at] ^= 1;
            refused(&stored[..at], "cut short");
        }
        assert!(read_sealed(&stored, &ROOT).is_ok());
    }

    #[test]
    fn holes_and_short_blocks_are_zeros_within_the_range_alone() {
        let texts = [&[1; B], &b""[..], b"abc", b""];
        let file = read_sealed(&write(&texts, 3 * B + 9, 0, [1, 4]), &ROOT).unwrap();
        assert_eq!(file.plaintext, [&[1; B][..], &[0; B], b"abc", &[0; B + 6]].concat());
        assert_eq!([1, 2, 3].map(|i| file.blocks[i].hole), [true, false, true]);
        for (range, place) in [([0, 0], 1), ([2, 4], 1), ([1, 2], 2), ([1, 3], 3)] {
            refused(&write(&texts, 3 * B + 9, 0, range), &format!("block {place}: missing"));
        }
    }

    #[test]
    fn headers_and_blocks_out_of_place_are_refused() {
        // Behind the size, nothing counts: neither what a block has too much, nor a torn block.
        let cut = write(&[b"12345", &[0; 9]], 3, CUT_PENDING, [0, 0]);
        assert_eq!(read_sealed(&cut[..cut.len() - 1], &ROOT).unwrap().plaintext, b"123");
        let fresh = [&cut[..512], &[0; 512], &cut[1024..8192]].concat();
        assert_eq!(read_sealed(&fresh, &ROOT).unwrap().generation, 1);
        refused(&write(&[], 0, 4, [0, 0]), "flags");
        let stored = write(&[&[1; B], &[2; B]], 2 * B, 0, [0, 0]);
        let changed = |change: &dyn Fn(&mut Vec<u8>), because| {
            let mut stored = stored.clone();
            change(&mut stored);
            refused(&stored, because);
        };
        changed(&|s| s[8192..].rotate_left(B + 48), "block 0: altered");
        changed(&|s| s.splice(8192..12336, block(0, &[1; B], 4)).for_each(drop), "header put back");
        changed(&|s| s[4608..5120].fill(0), "zeros beside generation 2");
        changed(&|s| put_slot(s, &ROOT, [5, 0, 0, 0, 0]), "do not differ by 1");
        changed(&|s| put_slot(s, &[4; 32], [3, 0, 0, 0, 0]), "another key");
        assert!(read_sealed(&stored, &[4; 32]).unwrap_err().contains("another key"));
    }
}
