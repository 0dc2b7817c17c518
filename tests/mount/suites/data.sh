# Data under operations that chance chooses.

fsx() { timeout 300 "$tools/bin/fsx" -q -f tests/mount/fsx.toml -N "$2" -S "$1" -P "$here" "$3"; }
fsx_seeds() {
    local n_operations=$1 block=$2 seed; shift 2
    up --block-size "$block"
    for seed in "$@"; do fsx "$seed" "$n_operations" "$folder/fsx.$seed"; done
    down
    verifies
}
handles_seeds() {
    local n_operations=$1 block=$2 seed; shift 2
    up --block-size "$block"
    for seed in "$@"; do timeout 300 "$exercise" handles "$seed" "$n_operations" "$folder/handles.$seed"; done
    down
    verifies
}
fio_verifies() {
    up
    timeout 300 fio --name=v --filename="$folder/fio" --size=64M --rw=randwrite --verify=crc32c --do_verify=1 \
        --ioengine=psync --verify_state_save=0 "$@"
    again
    timeout 300 fio --name=v --filename="$folder/fio" --size=64M --rw=randwrite --verify=crc32c --verify_only \
        --ioengine=psync --verify_state_save=0 "$@"
    down
    verifies
}

if [ -z "$whole" ]; then
    for block in 4KiB 64KiB; do
        holds "a file is one through four handles, with maps: $block" handles_seeds 2000 "$block" 1
        [ ! -x "$tools/bin/fsx" ] || holds "fsx, $block" fsx_seeds 2000 "$block" 1
    done
else
    needs fio fio
    limit=1200
    for block in 4KiB 64KiB 1MiB; do
        # shellcheck disable=SC2046
        holds "a file is one through four handles, with maps: 20 seeds of 10,000, $block" \
            handles_seeds 10000 "$block" $(seq 20)
    done
    for block in 4KiB 64KiB; do
        # shellcheck disable=SC2046
        holds "fsx, 20 seeds of 10,000, $block" fsx_seeds 10000 "$block" $(seq 20)
    done
    limit=600
    holds "fio verifies, before and after a remount" fio_verifies --bsrange=512-65536
    holds "fio verifies direct writes, before and after a remount" fio_verifies --bs=4k --direct=1 --size=16M
    unset limit
fi
