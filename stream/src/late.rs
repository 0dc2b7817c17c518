//! A server that need not be there when it is named.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use sealback_crypto::{FileId, HEADER_BYTES};

use crate::{Name, Server, Target, TargetError, TargetErrorKind};

/// A server that is opened when something is first asked of it, and again as often as that fails: what
/// stands behind a [`WriteBehind`](crate::WriteBehind) whose server may be away when it begins. What is not
/// found when it is opened may be there later, and counts as no answer in time. Clones are the same.
///
/// ```
/// use sealback_stream::{LateServer, LocalOptions, LocalServer, Name, Server, TargetErrorKind};
///
/// # let parent = tempfile::tempdir()?;
/// # let dir = parent.path().join("server");
/// let open = {
///     let dir = dir.clone();
///     move || LocalServer::open(&dir, LocalOptions::default())
/// };
/// let server = LateServer::new(open, |_| 0);
/// let name = Name::new("letter")?;
/// assert_eq!(server.open(&name).unwrap_err().kind(), TargetErrorKind::TimedOut);
/// std::fs::create_dir(&dir)?;
/// assert_eq!(server.open(&name).unwrap_err().kind(), TargetErrorKind::NotFound);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct LateServer(Arc<Late>);

struct Late {
    open: Box<dyn Fn() -> Result<Arc<dyn Server>, TargetError> + Send + Sync>,
    chunk_blocks: Box<dyn Fn(u64) -> u32 + Send + Sync>,
    server: OnceLock<Arc<dyn Server>>,
}

impl LateServer {
    /// A server that `open` opens. `chunk_blocks` says, without it, what its
    /// [`chunk_blocks`](Server::chunk_blocks) would.
    pub fn new<S: Server>(
        open: impl Fn() -> Result<S, TargetError> + Send + Sync + 'static,
        chunk_blocks: impl Fn(u64) -> u32 + Send + Sync + 'static,
    ) -> LateServer {
        let open = move || open().map(|server| Arc::new(server) as Arc<dyn Server>);
        let (open, chunk_blocks) = (Box::new(open), Box::new(chunk_blocks));
        LateServer(Arc::new(Late { open, chunk_blocks, server: OnceLock::new() }))
    }

    /// The server, which is opened if it is not. Nothing is held meanwhile: two may open it at once, and
    /// both get the same.
    fn server(&self) -> Result<&dyn Server, TargetError> {
        if let Some(server) = self.0.server.get() {
            return Ok(&**server);
        }
        let opened = (self.0.open)().map_err(|error| match error.kind() {
            TargetErrorKind::NotFound => {
                TargetError::new(TargetErrorKind::TimedOut, error.to_string())
            }
            _ => error,
        })?;
        Ok(&**self.0.server.get_or_init(|| opened))
    }
}

impl Server for LateServer {
    fn create(
        &self,
        name: &Name,
        file_id: FileId,
        header: &[u8; HEADER_BYTES],
    ) -> Result<Arc<dyn Target>, TargetError> {
        self.server()?.create(name, file_id, header)
    }

    fn draft(
        &self,
        name: &Name,
        file_id: FileId,
        header: &[u8; HEADER_BYTES],
    ) -> Result<Arc<dyn Target>, TargetError> {
        self.server()?.draft(name, file_id, header)
    }

    fn open(&self, name: &Name) -> Result<Arc<dyn Target>, TargetError> {
        self.server()?.open(name)
    }

    fn remove(&self, name: &Name) -> Result<(), TargetError> {
        self.server()?.remove(name)
    }

    fn chunk_blocks(&self, block_bytes: u64) -> u32 {
        match self.0.server.get() {
            Some(server) => server.chunk_blocks(block_bytes),
            None => (self.0.chunk_blocks)(block_bytes),
        }
    }

    fn identify(&self, known: Option<u128>) -> Result<Option<u128>, TargetError> {
        self.server()?.identify(known)
    }
}

impl fmt::Debug for LateServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LateServer").field(&self.0.server.get()).finish()
    }
}
