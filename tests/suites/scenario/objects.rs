//! Files as chunk objects in an object store.

mod requests;
