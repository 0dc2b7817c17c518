# A network and a server that fail. A put ends right, or with an error and the earlier version whole; a second one
# then succeeds.

# Has what follows in this shell go through a network that fails as a seed says.
through() {
    "$bin/faulty_proxy" "$address" "$1" >"$here/proxy-$1" &
    until_it test -s "$here/proxy-$1"
    use "$(cat "$here/proxy-$1")"
}
# Whether a command went through. It may fail, but it ends.
went_through() {
    local status=0
    "$@" 2>>"$here/told" || status=$?
    [ "$status" -le 1 ] || exit "$status"
    [ "$status" = 0 ] && n_right=$((n_right + 1))
}
# Either version is there as a whole, as it was told; then the later one is put once more.
is_either() {
    cp "$here/$1" "$here/plain"
    is_plain
    cp "$here/later" "$here/plain"
    sealed put "$here/later" --name f
    is_plain
}
put_through() { (through "$1"; sealed put "$here/later" --name f); }
patch_through() { (through "$1"; sealed patch f "$here/piece" --offset 2950000); }
faulty_network() {
    local seed n_right=0
    for seed in "$@"; do
        random 3000000 >"$here/earlier"
        random 40000000 >"$here/later"
        sealed put "$here/earlier" --name f
        if went_through put_through "$seed"; then is_either later; else is_either earlier; fi
        random 100000 >"$here/piece"
        if went_through patch_through $((seed + 1000)); then
            dd if="$here/piece" of="$here/plain" bs=1M seek=2950000 oflag=seek_bytes conv=notrunc status=none
            is_plain
        else
            # Some blocks may be old and others new.
            sealed verify f
        fi
    done
    fails grep -q -e "$secret" "$here/told"
    note "$n_right of $((2 * $#)) went through"
    # Most of what happens is mended.
    [ "$n_right" -ge $# ]
}
first=${SEED:-1}
if [ -n "$whole" ]; then n_seeds=20; else n_seeds=2; fi
# shellcheck disable=SC2046
limit=1200 holds "through a network that fails, a put or patch is right, or fails, changes nothing and can be done again" \
    faulty_network $(seq "$first" $((first + n_seeds - 1)))

# The server ends when half of the file has been read, and is back after a while.
killed_in_a_put() {
    local round putting n_right=0
    for round in $(seq "$1"); do
        random 3000000 >"$here/earlier"
        random 40000000 >"$here/later"
        sealed put "$here/earlier" --name f
        rm -f "$here/half"
        halves | sealed put - --name f 2>>"$here/told" &
        putting=$!
        until_it test -e "$here/half"
        sleep "0.$((round * 37 % 90 + 10))"
        kill_server "$end_signal"
        start
        if went_through wait "$putting"; then is_either later; else is_either earlier; fi
    done
    note "$n_right of $1 went through"
}
halves() {
    head -c 20000000 "$here/later"
    touch "$here/half"
    sleep 1
    tail -c +20000001 "$here/later"
}
if [ -n "$whole" ]; then n_kills=10; else n_kills=1; fi
limit=900 holds "with the server ended by SIG$end_signal in the middle of a put, that is right or changes nothing" \
    killed_in_a_put "$n_kills"
