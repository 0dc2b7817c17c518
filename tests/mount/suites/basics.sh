# What anybody does to a folder, and what is below it then.

write_some() {
    mkdir -p "$folder/a/b"
    cd "$folder"
    random 5000000 >a/large
    for n in $(seq 50); do random $((n * 997)) >"a/b/$n"; done
    dd if=/dev/urandom of=a/large bs=1000 count=7 seek=123 conv=notrunc status=none
    truncate -s 4000001 a/large
    ln a/large a/link
    ln -s large a/symbolic
    touch -d '2001-02-03 04:05:06' a/b/7
    find . -type f -exec sha256sum {} + >"$here/sums"
    cd "$root"
}
kept() {
    (cd "$folder" && sha256sum -c --quiet "$here/sums")
    [ "$(stat -c %Y "$folder/a/b/7")" = "$(date -d '2001-02-03 04:05:06' +%s)" ]
    [ "$(stat -c %h "$folder/a/large")" = 2 ]
    [ "$(readlink "$folder/a/symbolic")" = large ]
}
is_kept() { up; write_some; kept; again; kept; down; verifies; }
no_plaintext() {
    up
    grep -q "^Max core file size  *0  *0" "/proc/$pid/limits"
    echo "for your eyes only, in so many words" >"$folder/letter"
    sync "$folder/letter"
    fails grep -rq "so many words" "$lower"
    down
    fails grep -rq "so many words" "$lower"
}
hidden() {
    up
    [ -z "$(find "$folder" -name '.sealback*')" ]
    fails mkdir "$folder/.sealback"
    [ "$(stat -c %a "$lower/.sealback")" = 700 ]
    # By no other name, either.
    mkdir "$lower/alias"
    mount --bind "$lower/.sealback" "$lower/alias"
    fails ls "$folder/alias/"
    umount "$lower/alias"
    down
}
unlinked_goes_on() {
    up
    exec 5<>"$folder/gone"
    rm "$folder/gone"
    random 300000 >"$here/random"
    cat "$here/random" >&5
    cmp "$here/random" /proc/self/fd/5
    exec 5<&-
    down
    [ "$(find "$lower" -type f -not -path '*/.sealback/*' | wc -l)" = 0 ]
}
# Whoever else writes, or cuts, leaves nothing that runs as its owner.
drops_privileges() {
    up
    for change in 'echo more >>' 'truncate -s 1 ' 'fallocate -l 9000 ' 'fallocate -p -l 2 '; do
        echo some >"$folder/privileged"
        chmod 6777 "$folder/privileged"
        setpriv --reuid 65534 --regid 65534 --clear-groups sh -c "$change'$folder/privileged'"
        [ "$(stat -c %a "$folder/privileged" "$lower/privileged" | uniq)" = 777 ]
    done
    down
}
second_is_refused() {
    up
    mkdir "$here/other"
    fails timeout 10 "$bin/mount" "$lower" "$here/other" --key "$work/key" --foreground 2>"$here/refused"
    grep -q "mounted already" "$here/refused"
    down
}
# Compared while it is being written back, too: the times are those of the archive at once.
extracts() {
    up
    tar cf "$here/tar" crypto pipeline stream
    tar xf "$here/tar" -C "$folder"
    tar --compare -f "$here/tar" -C "$folder"
    again
    tar --compare -f "$here/tar" -C "$folder"
    tar cf - -C "$folder" . | tar tf - >"$here/names"
    down
}
# More files than the program may have open, in one directory and in many, and some of them open all the time.
few_descriptors() {
    (ulimit -n 400; up; echo "$pid" >"$here/pid")
    pid=$(cat "$here/pid")
    local n
    exec 5<>"$folder/open"
    for n in $(seq 30); do mkdir "$folder/$n"; done
    for n in $(seq 600); do echo "$n" >"$folder/file-$n"; echo "$n" >"$folder/$((n % 30 + 1))/$n"; done
    for n in 1 2; do
        [ "$(find "$folder" -type f -printf '%s\n' | wc -l)" = 1201 ]
        find "$folder" -type f -name "[0-9]*" -exec cat {} + | sort -n | cmp - <(seq 600)
        find "$folder" -name "file-*" -exec cat {} + | sort -n | cmp - <(seq 600)
    done
    echo open >&5
    [ "$(cat "$folder/open")" = open ]
    exec 5<&-
    fusermount3 -u "$folder"
    timeout 60 tail --pid="$pid" -f /dev/null
    verifies "$lower/1"
}

holds "what is written is read, now and after a remount, and verifies" is_kept
holds "no plaintext is below" no_plaintext
holds "what the library keeps beside the files is hidden, and for nobody else" hidden
holds "a file that has no name any more can be written and read, and goes with its last handle" unlinked_goes_on
holds "who writes to a set-user-id file takes that away" drops_privileges
holds "there may be more files than descriptors" few_descriptors
holds "a second mount is refused" second_is_refused
holds "an archive is extracted, and the same before and after a remount" extracts
