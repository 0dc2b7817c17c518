//! Buffers for sealed bytes: a fixed number, made when first needed, used again and again.
//!
//! The pool hands out [`Buffer`]s without ever waiting; each goes home when it is dropped, from any
//! thread. They hold ciphertext only, so they are not wiped in between. Who waits for a buffer is
//! told by the pool's waker; the waiting itself is the caller's.
//!
//! A buffer that was taken has no memory before somebody looks at it, and then that which came home last:
//! it may still be in the processor's cache, and would not be if every buffer that waits for its turn had
//! its own.
//!
//! **Invariants:** free + out = `n_buffers`; memory is allocated only if every other is in use; no lock is
//! held while it is, or while the waker runs.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::OnceLock;

use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A fixed number of buffers of one length. Clones are the same pool.
#[derive(Clone)]
pub struct BufferPool {
    shared: Arc<Shared>,
}

impl BufferPool {
    /// A pool of at most `n_buffers` buffers of `buffer_bytes` bytes each; none is allocated yet.
    pub fn new(n_buffers: usize, buffer_bytes: usize) -> BufferPool {
        let state = State { idle: Vec::new(), n_out: 0, high_water: 0 };
        BufferPool {
            shared: Arc::new(Shared {
                n_buffers,
                buffer_bytes,
                state: Mutex::new(state),
                waker: OnceLock::new(),
            }),
        }
    }

    /// Takes a buffer, or `None` while all are out. What it holds is left over from others.
    pub fn try_take(&self) -> Option<Buffer> {
        let mut state = self.shared.lock();
        if state.n_out == self.shared.n_buffers {
            return None;
        }
        state.n_out += 1;
        state.high_water = state.high_water.max(state.n_out);
        drop(state);
        Some(Buffer { bytes: OnceLock::new(), home: Some(Arc::clone(&self.shared)) })
    }

    /// Has `f` called after each return of a buffer, on the thread that dropped it, with no lock
    /// held. It must be quick. It must not own this pool, or neither is ever freed.
    ///
    /// # Panics
    /// The pool has a waker already.
    pub fn set_waker(&self, f: Box<dyn Fn() + Send + Sync>) {
        let is_first = self.shared.waker.set(f).is_ok();
        assert!(is_first, "a pool's waker is set once");
    }

    /// How many buffers there are, in use or not.
    pub fn n_buffers(&self) -> usize {
        self.shared.n_buffers
    }

    /// Bytes of each buffer.
    pub fn buffer_bytes(&self) -> usize {
        self.shared.buffer_bytes
    }

    /// How many more could be taken now.
    pub fn n_free(&self) -> usize {
        self.shared.n_buffers - self.shared.lock().n_out
    }

    /// The most buffers that were ever out at once.
    pub fn high_water(&self) -> usize {
        self.shared.lock().high_water
    }
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferPool")
            .field("n_buffers", &self.n_buffers())
            .field("buffer_bytes", &self.buffer_bytes())
            .field("n_free", &self.n_free())
            .finish_non_exhaustive()
    }
}

/// Bytes for sealing into or reading into; goes home to its pool when dropped.
pub struct Buffer {
    /// Set when it is first looked at.
    bytes: OnceLock<Box<[u8]>>,
    /// `None` for one that belongs to no pool.
    home: Option<Arc<Shared>>,
}

impl Buffer {
    /// A zeroed buffer of `bytes` bytes that belongs to no pool; it is freed when dropped.
    pub fn unpooled(bytes: usize) -> Buffer {
        Buffer { bytes: OnceLock::from(zeroed(bytes)), home: None }
    }
}

fn zeroed(bytes: usize) -> Box<[u8]> {
    vec![0; bytes].into_boxed_slice()
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get_or_init(|| self.home.as_ref().map_or_else(Box::default, Shared::memory))
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        let _chosen: &[u8] = self;
        self.bytes.get_mut().expect("it was looked at just now")
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home.give_back(self.bytes.take());
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("len_bytes", &self.bytes.get().map(|bytes| bytes.len()))
            .field("is_pooled", &self.home.is_some())
            .finish()
    }
}

struct Shared {
    n_buffers: usize,
    buffer_bytes: usize,
    state: Mutex<State>,
    waker: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

struct State {
    /// Allocated and not in use; what was used last is taken first, as it may still be in the cache.
    idle: Vec<Box<[u8]>>,
    n_out: usize,
    high_water: usize,
}

impl Shared {
    /// Memory for one of the buffers that are out.
    fn memory(self: &Arc<Self>) -> Box<[u8]> {
        let idle = self.lock().idle.pop();
        idle.unwrap_or_else(|| zeroed(self.buffer_bytes))
    }

    fn give_back(&self, bytes: Option<Box<[u8]>>) {
        {
            let mut state = self.lock();
            state.n_out -= 1;
            state.idle.extend(bytes);
        }
        if let Some(wake) = self.waker.get() {
            wake();
        }
    }

    /// Nothing under the lock can panic half-way, so a poisoned state is still a right one.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(shuttle)]
#[cfg(test)]
mod models;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn the_pool_gives_no_more_than_it_has_and_takes_back() {
        let pool = BufferPool::new(2, 100);
        let n_wakes = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&n_wakes);
        pool.set_waker(Box::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        }));
        assert_eq!((pool.n_free(), pool.high_water()), (2, 0));
        let mut first = pool.try_take().unwrap();
        first[99] = 7;
        let second = pool.clone().try_take().unwrap();
        assert!(pool.try_take().is_none());
        assert_eq!((pool.n_free(), pool.high_water()), (0, 2));
        drop(first);
        assert_eq!((pool.n_free(), n_wakes.load(Ordering::Relaxed)), (1, 1));
        let again = pool.try_take().unwrap();
        assert_eq!(again[99], 7, "the same memory is used again");
        drop((again, second));
        assert_eq!((pool.n_free(), pool.high_water()), (2, 2));
        assert_eq!(n_wakes.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_buffer_gets_the_memory_that_came_home_last_before_it_is_looked_at() {
        let pool = BufferPool::new(3, 1);
        let [mut first, mut second, waiting] = [(); 3].map(|()| pool.try_take().unwrap());
        first[0] = 1;
        second[0] = 2;
        drop(first);
        drop(second);
        assert_eq!(waiting[0], 2);
        assert_eq!(pool.shared.lock().idle.len(), 1, "no more memory than buffers were looked at");
        drop((waiting, pool.try_take().unwrap()));
        assert_eq!((pool.n_free(), pool.shared.lock().idle.len()), (3, 2));
    }

    #[test]
    fn the_waker_may_take_the_buffer_at_once() {
        let pool = BufferPool::new(1, 8);
        let taken = Arc::new(Mutex::new(Vec::new()));
        let (weak, kept) = (Arc::downgrade(&pool.shared), Arc::clone(&taken));
        pool.set_waker(Box::new(move || {
            let shared = weak.upgrade().unwrap();
            let mut kept = kept.lock().unwrap();
            if kept.is_empty() {
                kept.extend(BufferPool { shared }.try_take());
            }
        }));
        drop(pool.try_take().unwrap());
        assert_eq!(pool.n_free(), 0);
        assert_eq!(taken.lock().unwrap().len(), 1);
        let taken = std::mem::take(&mut *taken.lock().unwrap());
        drop(taken);
    }

    #[test]
    fn an_unpooled_buffer_belongs_to_no_pool() {
        assert_eq!(&Buffer::unpooled(3)[..], [0; 3]);
        assert!(BufferPool::new(0, 3).try_take().is_none());
    }
}
