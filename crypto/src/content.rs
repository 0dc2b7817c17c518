//! The key of one file's blocks: what sealing and opening start from.
//!
//! A header makes it; `seal.rs` and `open.rs` hold its two verbs. Clones share the secret, which is
//! wiped with the last of them.

use std::fmt;
use std::sync::Arc;

use crate::cipher::Engine;
use crate::geometry::Geometry;
use crate::xaes::Xaes;

/// A file's content key, made ready for sealing and opening; cheap to clone, wiped with the last
/// clone, never printed.
#[derive(Clone)]
pub struct ContentKey {
    xaes: Arc<Xaes>,
    geometry: Geometry,
    engine: Engine,
}

impl ContentKey {
    pub(crate) fn new(key: &[u8; 32], geometry: Geometry, engine: Engine) -> ContentKey {
        ContentKey { xaes: Arc::new(Xaes::new(key)), geometry, engine }
    }

    /// How the file is cut into blocks.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The engine that seals and opens.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// The same key in another engine.
    #[must_use]
    pub fn with_engine(&self, engine: Engine) -> ContentKey {
        ContentKey { engine, ..self.clone() }
    }

    pub(crate) fn xaes(&self) -> &Xaes {
        &self.xaes
    }

    /// What is authenticated beside a block's bytes: its number, length and seal_gen.
    pub(crate) fn block_aad(block: u64, len: u32, seal_gen: u32) -> [u8; 16] {
        let mut aad = [0; 16];
        aad[..8].copy_from_slice(&block.to_le_bytes());
        aad[8..12].copy_from_slice(&len.to_le_bytes());
        aad[12..].copy_from_slice(&seal_gen.to_le_bytes());
        aad
    }
}

impl fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContentKey")
            .field("geometry", &self.geometry)
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}
