# Processes that know nothing of each other change the same file at once.

# One process's patches: a byte of its own in each of some blocks, each time another one.
patches() {
    local me=$1 round
    for round in $(seq 0 $((n_rounds - 1))); do
        printf '%b' "\\x$(printf %02x "$me")" |
            sealed patch f - --offset $((places[round % 3] + round * 4 + me))
    done
}
# So many processes. What they write is interleaved: at the start, over a border of blocks, and over one of chunks.
patch_together() {
    local n=$1 me round pids=() expected
    n_rounds=25
    places=(0 $((4096 - 50)) $((65536 - 50)))
    head -c 100000 /dev/zero >"$here/plain"
    sealed put "$here/plain" --name f --block-size 4KiB --chunk-size "$2"
    for me in $(seq "$n"); do patches "$me" & pids+=($!); done
    for me in "${pids[@]}"; do wait "$me"; done
    for me in $(seq "$n"); do
        for round in $(seq 0 $((n_rounds - 1))); do
            printf '%b' "\\x$(printf %02x "$me")" |
                dd of="$here/plain" bs=1 seek=$((places[round % 3] + round * 4 + me)) conv=notrunc status=none
        done
    done
    is_plain
}
limit=400 holds "two processes that patch the same blocks 25 times each lose nothing" patch_together 2 64KiB
[ -z "$whole" ] || limit=1200 holds "four lose nothing, either" patch_together 4 64KiB
[ -z "$whole" ] || limit=1200 holds "nor do four in one chunk" patch_together 4 8MiB
