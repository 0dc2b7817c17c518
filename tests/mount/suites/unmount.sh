# The end, and what is told.

# Many files that are not written back, and a signal: all is there.
by_signal() {
    up
    for n in $(seq 40); do random 1000000 >"$here/$n"; cp "$here/$n" "$folder/$n"; done
    kill -"$1" "$pid"
    wait "$pid"
    fails mountpoint -q "$folder"
    verifies
    up
    for n in $(seq 40); do cmp "$here/$n" "$folder/$n"; done
    down
}
# A server that takes its time for each write: the rest is counted down.
with_progress() {
    up
    random 10000000 >"$here/original"
    strace -f -qq -o /dev/null -p "$pid" -e trace=pwrite64,pwritev,pwritev2 \
        -e "inject=pwrite64,pwritev,pwritev2:delay_enter=100000" &
    timeout 30 sh -c "until grep -q 'TracerPid:.[1-9]' /proc/$pid/status; do sleep 0.05; done"
    cp "$here/original" "$folder/slow"
    kill -"$1" "$pid"
    wait "$pid"
    grep -q ' to be written back$' "$here/log"
    up
    cmp "$here/original" "$folder/slow"
    down
}
# Who has a file open may go on until it is closed.
in_use() {
    up
    exec 5<>"$folder/open"
    kill -TERM "$pid"
    told "the folder is in use"
    echo more >&5
    exec 5<&-
    wait "$pid"
    up
    [ "$(cat "$folder/open")" = more ]
    down
}
fill_small_disk() {
    mount -t tmpfs -o size=4m none "$lower"
    up
    random 8000000 >"$here/original"
    echo little >"$folder/small"
    cat "$here/original" >"$folder/large"
}
# Not until it is asked for once more is anything given up, and never silently.
gives_up() {
    fill_small_disk
    kill -"$1" "$pid"
    told "large could not be written back"
    told "trying again every few seconds"
    fails grep -q "are lost" "$here/log"
    fails mountpoint -q "$folder"
    kill -0 "$pid"
    kill -"$2" "$pid"
    local status=0
    wait "$pid" || status=$?
    [ "$status" = 1 ]
    grep -q "of .*/large are lost" "$here/log"
    umount "$lower"
}
tries_again() {
    fill_small_disk
    fusermount3 -u "$folder"
    told "large could not be written back"
    mount -o remount,size=100m "$lower"
    wait "$pid"
    "$bin/writeback" get large --server "$lower" --key "$work/key" --out - | cmp - "$here/original"
    verifies
    umount "$lower"
}
# What was refused and has no name any more keeps nobody.
gone_is_dropped() {
    fill_small_disk
    fails sync "$folder/large"
    rm "$folder/large"
    down
    fails grep "could not be written back" "$here/log"
    verifies
    umount "$lower"
}
# Whoever mounts it in the meantime waits, and finds all of it.
next_waits() {
    fill_small_disk
    kill -INT "$pid"
    told "large could not be written back"
    local last=$pid
    (sleep 1; mount -o remount,size=100m "$lower") &
    up
    told "the last mount is still writing back"
    wait "$last"
    cmp "$here/original" "$folder/large"
    down
    umount "$lower"
}
in_background() {
    "$bin/mount" "$lower" "$folder" --key "$work/key" --log "$here/log"
    sed 's/process \([0-9]*\):.*/\1/' "$lower/.sealback/mount.lock" >>"$work/pids"
    random 3000000 >"$here/original"
    cp "$here/original" "$folder/file"
    fusermount3 -u "$folder"
    up
    cmp "$here/original" "$folder/file"
    down
    # What cannot be mounted is an error at once.
    fails "$bin/mount" "$lower" "$here/nowhere" --key "$work/key"
    fails "$bin/mount" "$lower" "$folder" --key /dev/null
}
statistics() {
    up
    echo some >"$folder/file"
    kill -USR1 "$pid"
    told "^not written back"
    told "^requests of the kernel"
    if command -v getfattr >/dev/null; then
        getfattr -n user.sealback.statistics --only-values "$folder" | grep "^pages in memory"
    fi
    down
}

holds "SIGINT writes everything back" by_signal INT
holds "SIGTERM writes everything back" by_signal TERM
holds "what is open when it is unmounted is written back when it is closed" in_use
holds "what is refused is listed, and tried again until there is room" tries_again
holds "what was refused and then removed is not written back" gone_is_dropped
holds "who mounts meanwhile waits" next_waits
holds "a second SIGTERM gives up, lists what is lost, and is an error" gives_up TERM TERM
holds "a second SIGINT gives up, lists what is lost, and is an error" gives_up INT INT
holds "in the background, too" in_background
holds "SIGUSR1 tells statistics" statistics
if [ -n "$whole" ]; then needs strace strace; needs attr getfattr; fi
if can_trace; then
    holds "SIGINT shows how much is left" with_progress INT
    [ -z "$whole" ] || holds "SIGTERM shows how much is left" with_progress TERM
fi
