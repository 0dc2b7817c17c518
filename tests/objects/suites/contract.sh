# What every server must keep: the conformance suite.

suite() {
    SEALBACK_OBJECTS=$at cargo test "${build[@]}" -p sealback-stream --features object-store,conformance,faulty --lib -- \
        --ignored --exact object::tests::an_object_server_over_the_store_that_the_environment_names_keeps_the_contract |
        tee /dev/stderr | grep "^test result: ok. 1 passed"
}
limit=600 holds "the contract is kept" suite
