//! What went wrong in the library that this design descends from, and must not here: the tests that
//! `tests/ANCESTOR.md` names, where no other test is there for it already.

mod document;
mod ending;
mod files;
mod folios;
mod pages;
mod retrying;
