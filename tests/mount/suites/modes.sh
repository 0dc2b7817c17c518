# Other ways to mount: a cache, read-only, several mounts.

# A tree that has something in it.
write_tree() {
    up
    mkdir "$folder/sub"
    random 3000000 >"$here/original"
    cp "$here/original" "$folder/large"
    echo small >"$folder/sub/small"
    ln -s large "$folder/symbolic"
    down
}
has_tree() { cmp "$here/original" "$folder/large"; [ "$(cat "$folder/sub/small")" = small ]; }
# A checksum of all that is below: names, modes, times, bytes.
state_below() { (cd "$lower" && find . -printf '%p %m %u %T@ %C@\n' -type f -exec sha256sum {} + | sort | sha256sum); }
with_cache() {
    local cache="$here/cache"
    write_tree
    up --cache "$cache"
    has_tree
    echo "for your eyes only, in so many words" >"$folder/letter"
    cp "$here/original" "$folder/copy"
    down
    fails grep -rq "so many words" "$cache" "$lower"
    up --cache "$cache"
    has_tree
    cmp "$here/original" "$folder/copy"
    down
    # Others write without this cache: what it has is not taken for what is there.
    up
    random 3000000 >"$here/original"
    cat "$here/original" >"$folder/large"
    truncate -s 1000 "$folder/copy"
    down
    up --cache "$cache"
    has_tree
    cmp -n 1000 "$folder/copy" "$folder/copy"
    [ "$(stat -c %s "$folder/copy")" = 1000 ]
    down
    # And a damaged one is no damage.
    find "$cache" -type f -size +100k -exec sh -c 'printf XXXX | dd of="$1" bs=1 seek=50000 conv=notrunc status=none' - {} \;
    up --cache "$cache"
    has_tree
    down
    verifies
}
only_reads() {
    has_tree
    local change
    for change in "echo more >>large" "echo new >new" "truncate -s 1 large" "rm large" "mkdir new" "mv large new" \
        "chmod 600 large" "touch large" "ln large new"; do
        fails sh -c "cd '$folder' && $change" 2>"$here/refused"
        grep -q "Read-only file system" "$here/refused"
    done
}
read_only() {
    write_tree
    local before; before=$(state_below)
    up --read-only
    only_reads
    down
    [ "$(state_below)" = "$before" ]
}
# The lower tree takes no writes: that is said at once, and `--read-only` reads it.
read_only_below() {
    write_tree
    mount --bind "$lower" "$lower"
    mount -o remount,ro,bind "$lower"
    fails timeout 20 "$bin/mount" "$lower" "$folder" --key "$work/key" --foreground 2>"$here/refused"
    grep -q "Read-only file system" "$here/refused"
    up --read-only
    only_reads
    down
    # In the background there is no log, then.
    "$bin/mount" "$lower" "$folder" --key "$work/key" --read-only
    pid=$(pgrep -f "^$bin/mount $lower ")
    echo "$pid" >>"$work/pids"
    only_reads
    fusermount3 -u "$folder"
    timeout 60 tail --pid="$pid" -f /dev/null
    umount "$lower"
}
# The lower tree is on a file system where a file has one name, always.
without_links() {
    mkdir "$here/disk"
    "$bin/passthrough" "$here/disk" "$lower" &
    until mountpoint -q "$lower"; do sleep 0.02; done
    up
    random 3000000 >"$here/original"
    cp "$here/original" "$folder/file"
    fails ln "$folder/file" "$folder/link"
    mv "$folder/file" "$folder/renamed"
    echo more >>"$folder/renamed"
    again
    (cat "$here/original"; echo more) | cmp - "$folder/renamed"
    down
    umount "$lower"
    wait
    fails ls "$here"/disk/.sealback/*.new
    verifies "$here/disk"
}
# One that takes none any more, as a disk with errors is remounted: told at fsync, and lost is nothing.
becomes_read_only() {
    mkdir "$here/disk"
    truncate -s 64M "$here/image"
    mkfs.ext4 -q "$here/image"
    mount -o loop "$here/image" "$lower"
    write_tree
    up
    exec 5<>"$folder/large"
    random 100000 >"$here/more"
    cat "$here/more" >&5
    mount -o remount,abort "$lower" || true
    fails sync "$folder/large" 2>"$here/refused"
    cat "$here/refused"
    exec 5<&-
    fusermount3 -u "$folder"
    told "large could not be written back"
    kill -TERM "$pid"
    fails wait "$pid"
    grep -q "large are lost" "$here/log"
    umount "$lower"
}
two_up() {
    mkdir -p "$here/one" "$here/other"
    start "$lower" "$here/one" --shared; one=$pid
    start "$lower" "$here/other" --shared; other=$pid
}
two_down() {
    fusermount3 -u "$here/one"
    fusermount3 -u "$here/other"
    wait "$one"
    wait "$other"
}
# An open sees what the other has closed, and bytes of one block are merged.
two_mounts() {
    two_up
    echo one >"$here/one/letter"
    echo two >>"$here/other/letter"
    [ "$(tr '\n' ' ' <"$here/one/letter")" = "one two " ]
    # Who has it open to append writes where it ends then.
    exec 5>>"$here/one/appended"
    echo one >&5
    exec 5<&- 5>>"$here/one/appended"
    echo other >>"$here/other/appended"
    echo more >&5
    exec 5<&-
    [ "$(tr '\n' ' ' <"$here/other/appended")" = "one other more " ]
    mv "$here/other/letter" "$here/other/renamed"
    [ ! -e "$here/one/letter" ]
    [ "$(stat -c %s "$here/one/renamed")" = 8 ]
    "$exercise" writers "$here/one/merged" "$here/other/merged"
    two_down
    verifies
}
# What is appended at the same moment is all there, and nothing else: by who opens the file anew each time, and by
# who has it open.
two_append() {
    two_up
    append() { for n in $(seq 100); do echo "$1 $n" >>"$here/$1/log"; echo "$1 $n" >>"$here/$1/new$n"; done; }
    go_on() { exec 5>>"$here/$1/open"; for n in $(seq 300); do echo "$1 $n" >&5; done; }
    local appenders=()
    for mount in one other; do
        append "$mount" & appenders+=($!)
        go_on "$mount" & appenders+=($!)
    done
    wait "${appenders[@]}"
    for mount in one other; do
        sort "$here/$mount"/new* | cmp - <(for n in $(seq 100); do echo "one $n"; echo "other $n"; done | sort)
        sort "$here/$mount/log" | cmp - <(for n in $(seq 100); do echo "one $n"; echo "other $n"; done | sort)
        sort "$here/$mount/open" | cmp - <(for n in $(seq 300); do echo "one $n"; echo "other $n"; done | sort)
    done
    two_down
    verifies
}
two_mounts_as_one() {
    local seed n_operations=$1; shift
    two_up
    for seed in "$@"; do
        timeout 300 "$exercise" handles "$seed" "$n_operations" "$here/one/file" "$here/other/file"
    done
    two_down
    verifies
}
alone_in_shared() {
    up --shared
    timeout 300 "$exercise" handles 7 3000 "$folder/file"
    [ ! -x "$tools/bin/fsx" ] || "$tools/bin/fsx" -q -f tests/mount/fsx.toml -N 1000 -S 3 -P "$here" "$folder/fsx"
    down
    verifies
}

holds "with a cache, which may be stale or damaged" with_cache
holds "--read-only reads, and changes nothing below" read_only
holds "a lower tree that is read-only can be read" read_only_below
holds "the lower file system need not have links" without_links
holds "two mounts see and merge what the other writes" two_mounts
holds "what two mounts append at the same moment is all there" two_append
holds "--shared, alone: four handles" alone_in_shared
if [ -z "$whole" ]; then
    holds "two mounts are as one for who closes" two_mounts_as_one 200 1
else
    # shellcheck disable=SC2046
    limit=600 holds "two mounts are as one for who closes" two_mounts_as_one 1000 $(seq 10)
    holds "a lower tree that becomes read-only is told of" becomes_read_only
fi
