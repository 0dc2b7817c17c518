//! Kernels: the small things that are done for each block, folio and subrequest, each by itself.
//!
//! `tests/benches` tells how long they take, `tests/instructions` how many instructions. Both call the
//! same code, which is the library's own, on one thread.

use std::fmt;

mod crypto;
mod page_cache;
mod request;
mod stream;

/// A kernel.
pub struct Kernel {
    /// What it is called: `area/what`, or `area/what/of what`.
    pub name: String,
    /// What a call does this many of.
    pub n_units: u64,
    /// What that is: a block, a folio, a subrequest.
    pub unit: &'static str,
    /// Bytes of plaintext in a unit, if each of them is touched; else 0.
    pub unit_bytes: u64,
    begin: Box<dyn Fn() -> Call>,
}

/// Does it once more. Each call does the same.
pub type Call = Box<dyn FnMut()>;

impl Kernel {
    /// Prepares what is not a part of it.
    pub fn begin(&self) -> Call {
        (self.begin)()
    }

    /// A kernel that touches no byte.
    fn of_units(
        name: &str,
        (n_units, unit): (u64, &'static str),
        begin: impl Fn() -> Call + 'static,
    ) -> Kernel {
        Kernel { name: name.to_owned(), n_units, unit, unit_bytes: 0, begin: Box::new(begin) }
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel").field("name", &self.name).finish_non_exhaustive()
    }
}

/// All kernels.
pub fn all() -> Vec<Kernel> {
    let mut all = crypto::kernels();
    all.extend(stream::kernels());
    all.extend(request::kernels());
    all.extend(page_cache::kernels());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kernel_can_be_called_again_and_has_a_name_of_its_own() {
        let mut names = std::collections::BTreeSet::new();
        for kernel in all() {
            let mut call = kernel.begin();
            call();
            call();
            assert!(names.insert(kernel.name.clone()), "two are called {}", kernel.name);
        }
    }
}
