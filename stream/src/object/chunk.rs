//! What a write makes of a chunk's bytes: arithmetic on one object, no requests.

use bytes::Bytes;
use object_store::PutPayload;
use sealback_crypto::{Geometry, Nonce, PREFIX_BYTES, Sealed};

use crate::{BlockConflict, Failure, Segment, TargetError, TargetErrorKind, Write};

/// What of a write goes to one chunk: its first.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) chunk: u64,
    pub(super) write: Write,
    geometry: Geometry,
}

impl Part {
    /// The part of a write that goes to the first chunk that it touches. Only holes go beyond that.
    ///
    /// # Errors
    /// Sealed blocks of several chunks are to be sent again in a write for each.
    pub(super) fn first_of(write: &Write, geometry: Geometry) -> Result<Part, Failure> {
        let first = write.blocks().start;
        let chunk_blocks = u64::from(geometry.chunk_blocks());
        let Some(position) = geometry.chunk_of(first) else {
            return Err(Failure::Fatal(not_chunked()));
        };
        let end = (position.chunk + 1).saturating_mul(chunk_blocks);
        let (segments, dirty) = (Vec::new(), Vec::new());
        let mut part = Write { segments, expectations: write.expectations.clone(), dirty };
        part.expectations.retain(|expectation| expectation.block < end);
        for segment in &write.segments {
            if segment.geometry() != geometry {
                return Err(Failure::Fatal(not_chunked()));
            }
            match segment {
                Segment::Hole { blocks, geometry } if blocks.start < end => {
                    let blocks = blocks.start..blocks.end.min(end);
                    part.segments.push(Segment::Hole { blocks, geometry: *geometry });
                }
                Segment::Hole { .. } => {}
                Segment::Sealed(sealed) if sealed.blocks().end <= end => {
                    part.segments.push(segment.clone());
                }
                Segment::Sealed(_) => {
                    let context = format!("a write goes beyond block {end}, where a chunk ends");
                    let error = TargetError::new(TargetErrorKind::Unsupported, context);
                    return Err(Failure::Renegotiate(error));
                }
            }
        }
        Ok(Part { chunk: position.chunk, write: part, geometry })
    }

    /// Where a block begins in the object.
    fn offset(&self, block: u64) -> usize {
        let position = self.geometry.chunk_of(block).expect("the file is in chunks");
        let bytes = position.offset + (position.chunk - self.chunk) * self.chunk_bytes();
        usize::try_from(bytes).expect("a chunk fits the memory")
    }

    /// The most bytes that the object may have.
    pub(super) fn chunk_bytes(&self) -> u64 {
        u64::from(self.geometry.chunk_blocks()) * self.geometry.stride_bytes()
    }

    /// Every expectation that does not hold of an object with these bytes.
    pub(super) fn conflicts(&self, object: &[u8]) -> Vec<BlockConflict> {
        let differs = |expectation: &&crate::Expectation| {
            let stored = nonce_at(object, self.offset(expectation.block));
            !expectation.holds(stored, self.write.nonce(expectation.block))
        };
        let conflict = |expectation: &crate::Expectation| BlockConflict {
            block: expectation.block,
            stored: nonce_at(object, self.offset(expectation.block)),
        };
        self.write.expectations.iter().filter(differs).map(conflict).collect()
    }

    /// Whether an object has all of it already.
    pub(super) fn is_in(&self, object: &[u8]) -> bool {
        self.write.segments.iter().all(|segment| match segment {
            Segment::Hole { blocks, .. } => {
                let mut prefixes = blocks.clone().map(|block| nonce_at(object, self.offset(block)));
                object.len() >= self.least_end(blocks.end)
                    && prefixes.all(|stored| stored.is_none())
            }
            Segment::Sealed(sealed) => sealed
                .nonces()
                .all(|(block, nonce)| nonce_at(object, self.offset(block)) == Some(nonce)),
        })
    }

    /// Whether nothing of an object of so many bytes would be left, or has to be compared.
    pub(super) fn replaces_all(&self, object_bytes: u64) -> bool {
        let mut end = 0;
        for segment in &self.write.segments {
            let Segment::Sealed(sealed) = segment else { return false };
            if self.offset(sealed.blocks().start) != end {
                return false;
            }
            end += sealed.bytes().len();
        }
        self.write.expectations.is_empty() && end as u64 >= object_bytes
    }

    /// An object with these bytes after the write.
    pub(super) fn spliced_into(&self, object: &Bytes) -> PutPayload {
        let mut pieces = Pieces { object, at: 0, pieces: Vec::new() };
        for segment in &self.write.segments {
            pieces.keep_to(self.offset(segment.blocks().start));
            match segment {
                Segment::Hole { blocks, .. } => {
                    let covered = self.offset(blocks.end).min(object.len());
                    pieces.zeros_to(covered.max(self.least_end(blocks.end)));
                }
                Segment::Sealed(sealed) => pieces.put(ciphertext(sealed)),
            }
        }
        pieces.keep_to(object.len());
        payload(pieces.pieces)
    }

    /// Where the object must end, at least, for the block before `end` to be a hole in it.
    fn least_end(&self, end: u64) -> usize {
        self.offset(end - 1) + PREFIX_BYTES
    }
}

/// The end of an object after a cut behind a block that begins at `offset`: as many bytes of it stay as
/// its prefix says that there are.
pub(super) fn end_of_block(object: &[u8], offset: usize) -> usize {
    let prefix = prefix_at(object, offset);
    let sealed = u32::from_le_bytes([prefix[40], prefix[41], prefix[42], prefix[43]]);
    offset + PREFIX_BYTES + usize::try_from(sealed).unwrap_or(0)
}

/// The first bytes of an object, as many as wanted: zeros where it has none.
pub(super) fn resized(object: &Bytes, bytes: usize) -> PutPayload {
    let mut pieces = Pieces { object, at: 0, pieces: Vec::new() };
    pieces.keep_to(bytes);
    payload(pieces.pieces)
}

/// The nonce that begins at `offset`; `None` for a hole.
fn nonce_at(object: &[u8], offset: usize) -> Option<Nonce> {
    let prefix = prefix_at(object, offset);
    let nonce = prefix.first_chunk().expect("a prefix begins with a nonce");
    (prefix != [0; PREFIX_BYTES]).then(|| Nonce::from_bytes(*nonce))
}

/// A block's prefix, with zeros where the object has ended.
fn prefix_at(object: &[u8], offset: usize) -> [u8; PREFIX_BYTES] {
    let mut prefix = [0; PREFIX_BYTES];
    let stored = object.get(offset..).unwrap_or_default();
    let len = stored.len().min(PREFIX_BYTES);
    prefix[..len].copy_from_slice(&stored[..len]);
    prefix
}

/// An object's bytes in the order in which they go out.
struct Pieces<'a> {
    object: &'a Bytes,
    at: usize,
    pieces: Vec<Bytes>,
}

impl Pieces<'_> {
    fn put(&mut self, piece: Bytes) {
        self.at += piece.len();
        if !piece.is_empty() {
            self.pieces.push(piece);
        }
    }

    /// What is there stays up to `end`; where nothing is, there are zeros.
    fn keep_to(&mut self, end: usize) {
        let kept = self.at.min(self.object.len())..end.min(self.object.len());
        if kept.start < kept.end {
            self.put(self.object.slice(kept));
        }
        self.zeros_to(end);
    }

    fn zeros_to(&mut self, end: usize) {
        while self.at < end {
            self.put(Bytes::from_static(&ZEROS[..(end - self.at).min(ZEROS.len())]));
        }
    }
}

/// Sealed blocks as they go out, without a copy.
fn ciphertext(sealed: &Sealed) -> Bytes {
    struct Ciphertext(Sealed);
    impl AsRef<[u8]> for Ciphertext {
        fn as_ref(&self) -> &[u8] {
            self.0.bytes()
        }
    }
    Bytes::from_owner(Ciphertext(sealed.clone()))
}

/// A store in memory keeps a payload of one piece as it is, and so a buffer that somebody waits for; one of
/// several it copies.
fn payload(mut pieces: Vec<Bytes>) -> PutPayload {
    if let [only] = &mut pieces[..] {
        let rest = only.split_off(only.len() / 2);
        pieces.push(rest);
    }
    pieces.into_iter().collect()
}

fn not_chunked() -> TargetError {
    let context = "an object server keeps files in chunks: this write is of a file that has others";
    TargetError::new(TargetErrorKind::Unsupported, context)
}

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
