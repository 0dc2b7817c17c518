//! Files as chunk objects in an object store: what is asked of it, and the suites that are for every kind of
//! server.

#[path = "clients.rs"]
mod clients;
#[path = "faults.rs"]
mod faults;
#[path = "model.rs"]
mod model;
mod requests;
pub(crate) mod served;
