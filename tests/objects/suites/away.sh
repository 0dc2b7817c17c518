# The server away while it is written behind: everything is there when it is back.

behind=(--write-behind --cache)
# Half a minute, or a minute: the program need not run meanwhile.
away_for() { sleep "$1"; }

put_while_away() {
    random 30000000 >"$here/plain"
    kill_server "$end_signal"
    sealed put "$here/plain" --name f "${behind[@]}" "$here/cache" --chunk-size 1MiB >"$here/put"
    grep -q "behind  waits in the cache for 'writeback resume'" "$here/put"
    fails sealed resume --cache "$here/cache" >"$here/resumed"
    grep -q '^f: waits in the cache' "$here/resumed"
    away_for "$1"
    start
    sealed resume --cache "$here/cache" >"$here/resumed"
    grep -q '^f: .* blocks uploaded' "$here/resumed"
    is_plain
}

# It goes away in the middle of the put's upload, and the put ends all the same.
goes_away_in_a_put() {
    random 60000000 >"$here/plain"
    sealed put "$here/plain" --name f "${behind[@]}" "$here/cache" >"$here/put" &
    local putting=$!
    sleep 0.5
    kill_server "$end_signal"
    wait "$putting"
    away_for "$1"
    start
    sealed resume --cache "$here/cache"
    is_plain
}

patch_while_away() {
    random 1000000 >"$here/plain"
    sealed put "$here/plain" --name f "${behind[@]}" "$here/cache"
    random 70000 >"$here/piece"
    kill_server "$end_signal"
    dd if="$here/piece" of="$here/plain" bs=1M seek=300001 oflag=seek_bytes conv=notrunc status=none
    sealed patch f "$here/piece" --offset 300001 "${behind[@]}" "$here/cache"
    start
    # Somebody else changes other bytes of the same block.
    printf x | sealed patch f - --offset 299990
    printf x | dd of="$here/plain" bs=1M seek=299990 oflag=seek_bytes conv=notrunc status=none
    sealed resume --cache "$here/cache" >"$here/resumed"
    grep -q '1 merged with what others have changed' "$here/resumed"
    is_plain
}

if [ -n "$whole" ]; then seconds=60; else seconds=1; fi
limit=300 holds "what is put with the server stopped waits, and is there after a resume" put_while_away "$seconds"
limit=300 holds "of a put whose server stops in the middle nothing is lost" goes_away_in_a_put "$seconds"
limit=300 holds "what is patched with the server stopped is merged with what others change" patch_while_away
