# POSIX: what the lower filesystem passes, the folder passes.

pjdfstest_passes() {
    # One that begins a path's length with some lengths of the mountpoint panics by itself.
    up
    mkdir -m 755 "$folder/pjd"
    timeout 300 "$tools/bin/pjdfstest" -c tests/mount/pjdfstest.toml -p "$folder/pjd" >"$here/pjd" || true
    grep -E ' FAILED$|^Summary' "$here/pjd"
    grep -q '^Summary: 0 failed' "$here/pjd"
    down
}
[ ! -x "$tools/bin/pjdfstest" ] || holds "pjdfstest" pjdfstest_passes
