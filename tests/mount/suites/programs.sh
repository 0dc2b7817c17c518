# Programs that people use.

git_works() {
    up
    timeout 200 git clone --quiet --no-hardlinks "$root" "$folder/clone"
    cd "$folder/clone"
    git fsck --full
    [ -z "$(git status --porcelain)" ]
    git -c user.name=me -c user.email=me@here commit --quiet --allow-empty -m "one more"
    git gc --quiet
    cd "$root"
    again
    cd "$folder/clone"
    git fsck --full
    [ -z "$(git status --porcelain)" ]
    cd "$root"
    down
}
# It maps, renames, links and locks. The second time nothing is to be built: the times have stayed.
cargo_builds() {
    up
    git ls-files -z | xargs -0 tar cf - | tar xf - -C "$folder"
    cd "$folder"
    timeout 900 cargo build --offline -p sealback-crypto --target-dir target
    timeout 900 cargo test --offline -p sealback-crypto --lib --target-dir target
    cd "$root"
    again
    cd "$folder"
    timeout 900 cargo build --offline -p sealback-crypto --target-dir target 2>&1 | tee "$here/second"
    fails grep -q "Compiling" "$here/second"
    cd "$root"
    down
}
tar_round_trip() {
    up
    timeout 300 tar cf "$here/tar" -C "${CARGO_HOME:-$HOME/.cargo}" registry/src
    timeout 300 tar xf "$here/tar" -C "$folder"
    timeout 300 tar --compare -f "$here/tar" -C "$folder"
    again
    timeout 300 tar --compare -f "$here/tar" -C "$folder"
    timeout 300 tar cf "$folder/tar" -C "$folder" registry
    mkdir "$folder/second"
    timeout 300 tar xf "$folder/tar" -C "$folder/second"
    diff -r "$folder/registry" "$folder/second/registry"
    down
}
sqlite() {
    local db="$folder/db"
    up "$@"
    sqlite3 "$db" "pragma journal_mode=wal; create table t(a integer primary key, b blob)"
    # A reader sees a writer's commits through the shared memory beside the file.
    sqlite3 "$db" "with recursive c(x) as (select 1 union all select x+1 from c where x<20000)
        insert into t(b) select randomblob(300) from c; update t set b=randomblob(200) where a%3=0" &
    for _ in $(seq 20); do sqlite3 -cmd '.timeout 20000' "$db" 'pragma quick_check' | grep -qx ok; done
    wait $!
    [ "$(sqlite3 "$db" 'pragma integrity_check')" = ok ]
    # Left in the log, and not in the file.
    sqlite3 "$db" "pragma wal_autocheckpoint=0; delete from t where a%7=0; select count(*) from t" >"$here/count"
    again "$@"
    [ "$(sqlite3 "$db" 'pragma integrity_check')" = ok ]
    [ "$(sqlite3 "$db" 'select count(*) from t')" = "$(tail -n 1 "$here/count")" ]
    down
    verifies
}
# What it has committed with an fsync is there when the program is killed.
sqlite_killed() {
    local db="$folder/db" round writer n
    up --block-size 4KiB
    sqlite3 "$db" "pragma journal_mode=wal; create table t(a integer primary key, b blob)"
    for round in $(seq 5); do
        for n in $(seq 500); do
            echo "pragma synchronous=full; insert into t(b) values(randomblob(1000)); select max(a) from t;"
        done | sqlite3 "$db" >"$here/done" 2>/dev/null &
        writer=$!
        sleep "0.$((round * 23 % 60 + 20))"
        kill -9 "$pid"
        wait "$pid" || true
        wait "$writer" || true
        fusermount3 -u -z "$folder"
        up --block-size 4KiB
        [ "$(sqlite3 "$db" 'pragma integrity_check')" = ok ]
        [ "$(sqlite3 "$db" 'select max(a) from t')" -ge "$(tail -n 1 "$here/done")" ]
    done
    down
    verifies
}

needs git git
needs sqlite3 sqlite3
limit=300
holds "git clones, checks, commits and packs" git_works
holds "sqlite with a log, across a remount" sqlite
holds "sqlite with a log, in blocks of 4 KiB" sqlite --block-size 4KiB
holds "sqlite keeps what it committed after kill -9" sqlite_killed
limit=900
holds "what cargo has downloaded goes round through tar" tar_round_trip
limit=1800
holds "cargo builds and tests, and knows after a remount that nothing has changed" cargo_builds
unset limit
