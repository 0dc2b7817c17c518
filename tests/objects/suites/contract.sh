# What every server must keep, and what holds of files on it, whatever is done to them: the suites in Rust.

suite() { SEALBACK_OBJECTS=$at cargo test "${build[@]}" -p sealback-tests --test scenario "$1" -- --nocapture; }
limit=600 holds "the contract is kept, and files are what they are in memory" suite objects::
