# Figures, for PERFORMANCE.md: what is slow fails nothing. A part of `all` it is not.

cargo build "${build[@]}" -p sealback-examples --features object-store --example throughput

# In turns with them, in one process.
beside_plain_puts() {
    "$bin/examples/throughput" --only objects-put --objects "$url" --size "${SIZE:-1GiB}" >"$here/table"
    note "$(tr -s ' ' <"$here/table")"
}
limit=600 holds "a put beside plain puts of the same objects" beside_plain_puts

# The most that the program had resident, by its own word.
peak_of_a_put() {
    head -c "$1" /dev/zero | sealed put - --name f --json >"$here/summary"
    note "$(grep -o '"peak_rss_bytes":[0-9]*' "$here/summary"), $(grep -o '"bytes":[0-9]*' "$here/summary" | head -n 1)"
}
for size in 256M 1G ${LARGE:+"$LARGE"}; do
    limit=600 holds "a put of $size in 64 MiB" peak_of_a_put "$size"
done
