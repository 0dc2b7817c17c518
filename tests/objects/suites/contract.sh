# What every server must keep: the conformance suite. And what suites show of every server: that files are as a model
# has them, and that nothing is lost whatever a target does.

passes() {
    SEALBACK_OBJECTS=$at cargo test "${build[@]}" "$@" | tee /dev/stderr | grep "^test result: ok. [1-9]"
}
limit=600 holds "the contract is kept" passes -p sealback-stream --features object-store,conformance,faulty --lib -- \
    --ignored --exact object::tests::an_object_server_over_the_store_that_the_environment_names_keeps_the_contract

properties() {
    SEALBACK_CASES=$1 passes -p sealback-tests --features object-store --test scenario -- \
        objects::clients objects::faults objects::model lockless::two_and_four_clients_of_an_object_store
}
if [ -n "$whole" ]; then n_cases=20; else n_cases=1; fi
limit=900 holds "files are as a model has them and several clients lose nothing, whatever the targets do" properties "$n_cases"
