# Many processes at once, with all that stress-ng has for files; what it can verify, it does.

stressed() {
    local stressors=() one
    stress-ng --help >"$here/help"
    for one in access chmod chown copy-file dentry dir dirdeep dirmany fallocate fiemap filename flock fpunch fsize fstat \
        getdent handle hdd io iomix lease link locka lockf lockofd mknod mmap msync open readahead rename revio seek sendfile \
        splice symlink sync-file touch unlink utime xattr; do
        # Not every version has all of them.
        ! grep -q -- " --$one N" "$here/help" || stressors+=("--$one" 1)
    done
    up "$@"
    mkdir -m 777 "$folder/stress"
    # What one of them fails at is told, and is an error.
    stress-ng --temp-path "$folder/stress" --verify --timeout 120 --metrics-brief "${stressors[@]}"
    again "$@"
    find "$folder" -type f -exec cat {} + >/dev/null
    down
    verifies
}

needs stress-ng stress-ng
limit=400
holds "two minutes of stress-ng" stressed
holds "two minutes of stress-ng, --shared" stressed --shared
unset limit
