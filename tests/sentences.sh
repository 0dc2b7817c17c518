# For the runs here that check sentences, one after the other: each in a shell of its own, and no longer than its time.
#
# Who sources this has $work, a directory, and says what is around a check: before_check, with $here as a directory of
# its own; after_check, which ends what it has begun and not ended; and $subject, if its sentences are of one.

passed=0 failed=0 check=
# Where steps are told as they begin: a check that fails shows its last ones.
exec 7>&2
BASH_XTRACEFD=7

# A sentence, and what shows it, in a shell where each step counts: in the background, since `set -e` does not hold in
# what a condition calls, and with all that it begins as one group, which ends with it.
holds() {
    local sentence=${subject:+$subject: }$1 limit=${limit:-120} began=$SECONDS; shift
    n=$((passed + failed + 1)) here=$work/$n
    mkdir -m 755 "$here"
    before_check
    set -m
    (set -ex; "$@") </dev/null >"$here/out" 2>&1 7>&1 &
    check=$!
    set +m
    while kill -0 "$check" 2>/dev/null && [ $((SECONDS - began)) -lt "$limit" ]; do sleep 0.1; done
    if kill -0 "$check" 2>/dev/null; then
        echo "after $limit seconds it had not ended" >>"$here/out"
        after_check
        end_check
    fi
    if wait "$check"; then
        passed=$((passed + 1)); echo "ok: $sentence ($(cat "$here/note" 2>/dev/null)$((SECONDS - began)) s)"
    else
        failed=$((failed + 1)); echo "FAILED: $sentence"
        for told in "$here/out" "$here/log"; do [ ! -e "$told" ] || tail -n 30 "$told" | cut -c 1-300; done
    fi
    after_check 2>/dev/null
    end_check
    check=
    [ -n "${KEEP:-}" ] || rm -rf "$here"
}
# Ends the check that runs, if one does, and all that it has begun.
end_check() { [ -z "$check" ] || kill -- "-$check" 2>/dev/null || true; }

# A program that is wanted, and the package that has it.
needs() {
    local package=$1 program=$2
    command -v "$program" >/dev/null || from_apt "$package"
}
# Where nothing is to be had from outside, that is known soon.
from_apt() {
    local apt=(timeout 120 apt-get -qq -o Acquire::Retries=1 -o Acquire::http::Timeout=20 -o DPkg::Lock::Timeout=60)
    export DEBIAN_FRONTEND=noninteractive
    "${apt[@]}" update </dev/null && "${apt[@]}" install -y --no-install-recommends "$@" </dev/null >/dev/null
}

# Something that a check adds to its sentence.
note() { printf '%s, ' "$*" >"$here/note"; }
# That something does not succeed.
fails() { ! "$@"; }
random() { head -c "$1" /dev/urandom; }
