# Every command, against a plain file that the same is done to.

# Puts, gets, verifies.
there_and_back() {
    local size
    for size in "$@"; do
        random "$size" >"$here/plain"
        sealed put "$here/plain" --name "f $size%2Fü" "${with[@]}"
        sealed get "f $size%2Fü" --out "$here/got"
        cmp "$here/plain" "$here/got"
        sealed verify "f $size%2Fü"
        prints "\"bytes\":$size," sealed inspect "f $size%2Fü" --json
    done
    prints "^f $1%2Fü$" on list
    [ "$(wc -l <"$here/printed")" = $# ]
}
with=(--chunk-size 256KiB --block-size 4KiB)
holds "what is put is there, under its name" there_and_back 0 1 4096 253952 300001 3000000
with=()
holds "chunks of the default size are there and back" there_and_back 20000000

# The bytes of a file, sealed and plain, changed alike.
in_place() {
    with=(--chunk-size "$1" --block-size "$2")
    random 1000000 >"$here/plain"
    sealed put "$here/plain" --name f "${with[@]}"
    local offset length size
    while read -r offset length; do
        random "$length" >"$here/piece"
        dd if="$here/piece" of="$here/plain" bs=1M seek="$offset" oflag=seek_bytes conv=notrunc status=none
        sealed patch f "$here/piece" --offset "$offset"
    done <<<"0 1
        100000 70000
        999999 5
        1500000 300000"
    is_plain
    for size in 1700001 900000 262144 262143 800000 0 500000; do
        truncate -s "$size" "$here/plain"
        sealed truncate f "$size"
    done
    is_plain
    random 500000 >"$here/plain"
    sealed patch f "$here/plain" --offset 0
    dd if=/dev/zero of="$here/plain" bs=1M seek=70000 count=300000 oflag=seek_bytes iflag=count_bytes conv=notrunc \
        status=none
    sealed punch f --offset 70000 --length 300000
    is_plain
    writeback keygen "$here/other"
    sealed rekey f --new-key "$here/other"
    fails sealed get f --out "$here/got"
    on rekey f --key "$here/other" --new-key "$work/key"
    is_plain
}
holds "what is patched, cut, grown, punched and rekeyed in place is what a plain file is" in_place 64KiB 4KiB
[ -z "$whole" ] || holds "the same with larger blocks" in_place 1MiB 64KiB

through_a_cache() {
    random 5000000 >"$here/plain"
    sealed put "$here/plain" --name f --cache "$here/cache"
    sealed verify f --cache "$here/cache"
    random 9999 >"$here/piece"
    dd if="$here/piece" of="$here/plain" bs=1M seek=4444444 oflag=seek_bytes conv=notrunc status=none
    sealed patch f "$here/piece" --offset 4444444 --cache "$here/cache"
    sealed verify f --cache "$here/cache"
    sealed get f --cache "$here/cache" --out "$here/got"
    cmp "$here/plain" "$here/got"
    sealed get f --cache "$here/empty" --out "$here/got"
    sealed verify f --cache "$here/empty"
    cmp "$here/plain" "$here/got"
}
holds "a cache has what the store has" through_a_cache

# Of a file that is replaced, or whose put is killed, no object is left.
leaves_nothing() {
    random 3000000 >"$here/plain"
    sealed put "$here/plain" --name f --chunk-size 256KiB
    local before n
    before=$(keys "${at#"$url/"}/" | wc -l)
    random 3000000 >"$here/plain"
    sealed put "$here/plain" --name f --chunk-size 256KiB
    [ "$(keys "${at#"$url/"}/" | wc -l)" = "$before" ]
    # It is killed when some of its chunks are there: itself, not the shell that waits for it.
    "$bin/examples/writeback" put /dev/zero --name f --chunk-size 256KiB --server "$at" --key "$work/key" &
    until [ "$(keys "${at#"$url/"}/" | wc -l)" -gt "$((before + 3))" ]; do kill -0 $!; done
    kill -9 $!
    wait $! || true
    # What was under way arrives.
    sleep 2
    is_plain
    n=$(($(keys "${at#"$url/"}/" | wc -l) - before))
    prints "^0 objects of no file, 0 B; $n younger" on scrub
    prints "^$n objects of no file.*; 0 removed" on scrub --older-than 0
    # So far nothing has gone.
    [ "$(keys "${at#"$url/"}/" | wc -l)" = "$((before + n))" ]
    prints "\"n_removed\":$n[,}]" on scrub --older-than 0 --remove --json
    [ "$(keys "${at#"$url/"}/" | wc -l)" = "$before" ]
    is_plain
}
holds "of a file that was replaced nothing is left, and a scrub removes what a killed put has left" leaves_nothing

# What goes wrong is told in one line, without the key.
is_told() {
    random 1000 >"$here/plain"
    says "no such file" sealed get nothing --out "$here/got"
    says "not permitted\|denied\|not authori[sz]ed\|privileges" with_unknown_key
    says "sealback-none" with_no_bucket
    says "connect\|refused\|reach" with_no_server
    [ ! -e "$here/got" ]
    # What is damaged is found.
    sealed put "$here/plain" --name f
    sealed verify f
}
with_unknown_key() { (unknown_key; sealed put "$here/plain" --name f); }
with_no_bucket() { (at=$url-none/x; sealed put "$here/plain" --name f); }
with_no_server() { (use 127.0.0.1:1; sealed put "$here/plain" --name f); }
holds "what goes wrong is told in one line, without a secret" is_told
