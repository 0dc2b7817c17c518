# What is below is damaged, exchanged, full, or fails: no wrong byte, no write lost, nothing silent.

# Reads a file block by block, each in a request of its own, and prints which blocks are errors.
bad_blocks() {
    local file=$1 n_blocks=$2 bad="" block
    for block in $(seq 0 $((n_blocks - 1))); do
        dd if="$file" of="$here/block" bs=16384 skip="$block" count=1 status=none || { bad+="$block "; continue; }
        cmp -n 16384 -i $((block * 16384)):0 "$here/original" "$here/block" >&2 || bad+="$block-WRONG "
    done
    echo "$bad"
}
stored_start() { echo $((8192 + $1 * 16432)); }
write_original() {
    random 1000000 >"$here/original"
    cp "$here/original" "$folder/damaged"
}
# While it is open, and nothing of it is in memory.
names_the_block() {
    up
    write_original
    again
    exec 5<"$folder/damaged"
    printf X | dd of="$lower/damaged" bs=1 seek=$(($(stored_start 5) + 100)) conv=notrunc status=none
    [ "$(bad_blocks "$folder/damaged" 62)" = "5 " ]
    grep -q 'damaged: block 5: altered or torn' "$here/log"
    exec 5<&-
    # What is written over all of it is good again.
    dd if="$here/original" of="$folder/damaged" bs=16384 skip=5 seek=5 count=1 conv=notrunc status=none
    again
    cmp "$here/original" "$folder/damaged"
    down
    verifies
}
# Two blocks change places, and one has its neighbour's nonce or tag.
moved_blocks() {
    up
    write_original
    down
    dd if="$lower/damaged" of="$here/block" bs=16432 count=1 skip="$(stored_start 7)" iflag=skip_bytes status=none
    dd if="$here/block" of="$lower/damaged" bs=16432 seek="$(stored_start 9)" oflag=seek_bytes conv=notrunc status=none
    up
    [ "$(bad_blocks "$folder/damaged" 62)" = "9 " ]
    down
}
# Somebody cuts the lower file while it is open.
cut_below() {
    up
    write_original
    again
    exec 5<"$folder/damaged"
    truncate -s "$(stored_start 40)" "$lower/damaged"
    bad=$(bad_blocks "$folder/damaged" 62)
    [ "$bad" = "$(seq -s ' ' 40 61) " ]
    exec 5<&-
    down
}
# In the place of a sealed file is another of the same key, under its name and number.
swapped() {
    up
    write_original
    echo other >"$folder/other"
    down
    up
    cat "$folder/damaged" "$folder/other" >"$here/read"
    cat "$lower/other" >"$lower/damaged"
    fails cat "$folder/damaged"
    grep -q "damaged: another sealed file was put in its place" "$here/log"
    [ "$(cat "$folder/other")" = other ]
    down
}
# What is no sealed file of this key is an error, and can be seen and removed.
foreign() {
    echo "in the clear" >"$lower/foreign"
    random 100000 >"$lower/longer"
    up
    [ "$(find "$folder" -type f | wc -l)" = 2 ]
    fails cat "$folder/foreign"
    fails cat "$folder/longer"
    fails sh -c "echo more >>'$folder/foreign'"
    [ "$(cat "$lower/foreign")" = "in the clear" ]
    rm "$folder/foreign" "$folder/longer"
    down
}
# In place of what the mount keeps for itself is a link to something else, or a pipe: nobody empties that, writes to
# it or waits for it.
no_mount() {
    fails timeout 10 "$bin/mount" "$lower" "$folder" --key "$work/key" --shared 2>"$here/refused"
    grep -q "/.sealback" "$here/refused"
    rm -r "$lower/.sealback"
}
own_files() {
    local name
    echo precious >"$here/precious"
    for name in mount.lock append.lock mount.log; do
        mkdir "$lower/.sealback"
        ln -s "$here/precious" "$lower/.sealback/$name"
        no_mount
        mkdir "$lower/.sealback"
        mkfifo "$lower/.sealback/$name"
        no_mount
    done
    [ "$(cat "$here/precious")" = precious ]
    mkdir "$here/elsewhere"
    ln -s "$here/elsewhere" "$lower/.sealback"
    no_mount
    [ -z "$(ls "$here/elsewhere")" ]
}
# What `fsync` says of the very file that is open as this descriptor.
fsync_of() { dd if=/dev/null conv=fsync,notrunc status=none >&"$1"; }
# Tells of an error once, by each of the descriptors that were open then, and by none that is opened later.
told_once() {
    local message=$1 descriptor; shift
    for descriptor in "$@"; do
        fails fsync_of "$descriptor" 2>"$here/told"
        grep -q "$message" "$here/told"
        fsync_of "$descriptor"
    done
    sync "$folder/refused"
}
small_disk() { mount -t tmpfs -o size=10m none "$lower"; }
# Six times what there is room for: told at fsync, kept, and written back when there is room.
full_disk() {
    small_disk
    up
    random 60000000 >"$here/original"
    exec 5<>"$folder/refused" 6<>"$folder/refused"
    cat "$here/original" >&5
    fails sync "$folder/refused" 2>"$here/refused"
    grep -q "No space left" "$here/refused"
    forget_pages
    cmp "$here/original" "$folder/refused"
    mount -o remount,size=100m "$lower"
    told_once "No space left" 5 6
    exec 5<&- 6<&-
    again
    cmp "$here/original" "$folder/refused"
    down
    verifies
    umount "$lower"
}
# More than there is room for on the disk and in the memory together: nobody waits for ever, and all can be written when
# there is room. What the memory keeps is told of by the program, the rest by the kernel, and both together once.
full_disk_and_memory() {
    small_disk
    up --memory 16MiB
    random 60000000 >"$here/original"
    exec 5<>"$folder/refused" 6<>"$folder/refused"
    # The kernel tells at the first close, too.
    cat "$here/original" >&5 || true
    fails fsync_of 5 2>"$here/refused"
    grep -q "No space left" "$here/refused"
    mount -o remount,size=200m "$lower"
    echo small >"$folder/small"
    fsync_of 5
    told_once "No space left" 6
    cat "$here/original" >"$folder/refused"
    sync "$folder/refused"
    exec 5<&- 6<&-
    again
    cmp "$here/original" "$folder/refused"
    [ "$(cat "$folder/small")" = small ]
    down
    verifies
    umount "$lower"
}
# The next fsync that succeeds has all of it.
refused_once() {
    local errno=$1 message=$2
    up
    # Attached to the running program, and let go: what is being overwritten fails in between.
    random 300000 >"$here/original"
    exec 5<>"$folder/refused" 6<>"$folder/refused"
    cat "$here/original" >&5
    strace -f -qq -o "$here/strace" -p "$pid" -e trace=pwrite64,pwritev,pwritev2 \
        -e "inject=pwrite64,pwritev,pwritev2:error=$errno" &
    local tracer=$!
    timeout 30 sh -c "until grep -q 'TracerPid:.[1-9]' /proc/$pid/status; do sleep 0.05; done"
    sleep 0.3
    fails timeout 60 sync "$folder/refused" 2>"$here/refused"
    kill "$tracer"
    wait "$tracer" || true
    grep -q "$message" "$here/refused"
    grep -q "INJECTED" "$here/strace"
    told_once "$message" 5 6
    exec 5<&- 6<&-
    again
    cmp "$here/original" "$folder/refused"
    down
    verifies
}

holds "of a file that is damaged while it is open one block is an error, and named" names_the_block
holds "a block in another's place is an error there" moved_blocks
holds "of a file that is cut below what is left is readable" cut_below
holds "a sealed file that is put in another's place is noticed" swapped
holds "what is not sealed is an error, and can be removed" foreign
holds "a link or a pipe in place of what the mount keeps for itself is refused" own_files
holds "a full disk is told of, once, and loses nothing" full_disk
holds "a full disk that the memory cannot make up for is told of, once, and keeps nobody waiting" full_disk_and_memory
if [ -n "$whole" ]; then needs strace strace; fi
if can_trace; then
    holds "a full quota is told of, once, and loses nothing" refused_once EDQUOT "Disk quota exceeded"
    holds "a disk that fails is told of, once, and loses nothing" refused_once EIO "Input/output error"
fi
