# The program is killed. What was being overwritten then is as it was or as it was to be; what was fsynced is there.

survives_kills() {
    local n_rounds=$1 round writer; shift
    up "$@"
    for round in $(seq "$n_rounds"); do
        "$exercise" records "$folder/records" "$here/notes" &
        writer=$!
        sleep "0.$((round * 37 % 90 + 10))"
        kill -9 "$pid"
        wait "$pid" || true
        wait "$writer" || true
        fusermount3 -u -z "$folder"
        up "$@"
        "$exercise" recorded "$folder/records" "$here/notes"
    done
    down
    verifies
}
if [ -z "$whole" ]; then
    holds "what was fsynced is there after kill -9, and no block is torn" survives_kills 3
else
    for with in "" "--block-size 4KiB" "--block-size 1MiB" "--shared" "--cache CACHE"; do
        # shellcheck disable=SC2086
        holds "what was fsynced is there after kill -9, and no block is torn: $with" \
            survives_kills 20 ${with/CACHE/$work/cache-of-killed}
    done
fi
