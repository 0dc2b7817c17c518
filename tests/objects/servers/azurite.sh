# Azurite, Microsoft's own stand-in for Azure's blob storage.

install() {
    needs nodejs node && needs python3 python3 || return
    ! is_installed || return 0
    needs npm npm || return
    rm -rf "$tools/node"
    mkdir -p "$tools/node"
    timeout 300 npm install --prefix "$tools/node" --no-audit --no-fund --fetch-retries 1 --fetch-timeout 20000 \
        --loglevel error azurite@3.35.0 && is_installed
}
is_installed() { timeout 30 "$tools/node/node_modules/.bin/azurite-blob" --version >/dev/null 2>&1; }
url=az://sealback
# Where it is to be, and who may use it: the account that every Azurite has, and that everybody knows.
settle() {
    read -r port < <(free_ports 1)
    address=127.0.0.1:$port
    account=devstoreaccount1
    secret=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==
    export AZURE_STORAGE_USE_EMULATOR=true AZURE_STORAGE_ACCOUNT_NAME=$account AZURE_STORAGE_ACCOUNT_KEY=$secret
    use "$address"
}
# Has the programs that follow use a server at an address.
use() { export AZURITE_BLOB_STORAGE_URL=http://$1; }
# Has the programs that follow use a key that the server does not know.
unknown_key() { AZURE_STORAGE_ACCOUNT_KEY=$(printf unknown | base64); }
start() {
    begin "$tools/node/node_modules/.bin/azurite-blob" --blobHost 127.0.0.1 --blobPort "$port" --location "$work/azurite" \
        --skipApiVersionCheck --disableTelemetry --silent >>"$work/server.log" 2>&1
    until_it answers
}
answers() { signed GET "" comp=list >"$work/answer"; }
# A request with the account's signature, as python's standard library makes it.
signed() {
    python3 - "$address" "$account" "$secret" "$@" <<'PYTHON'
import base64, email.utils, hashlib, hmac, sys, urllib.request
address, account, key, method, path, *query = sys.argv[1:]
date = email.utils.formatdate(usegmt=True)
asked = "".join("\n" + each.replace("=", ":", 1) for each in sorted(query))
text = f"{method}{chr(10) * 12}x-ms-date:{date}\nx-ms-version:2021-08-06\n/{account}/{account}/{path}{asked}"
mac = base64.b64encode(hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()).decode()
headers = {"x-ms-date": date, "x-ms-version": "2021-08-06", "Authorization": f"SharedKey {account}:{mac}"}
where = f"http://{address}/{account}/{path}?" + "&".join(query)
request = urllib.request.Request(where, method=method, headers=headers)
print(urllib.request.urlopen(request, timeout=10).read().decode())
PYTHON
}
make_bucket() { signed PUT sealback restype=container >"$work/answer"; }
# The keys of all objects below a prefix.
keys() {
    signed GET sealback restype=container comp=list "prefix=$1" >"$work/answer"
    grep -o '<Name>[^<]*' "$work/answer" | cut -c 7- || true
}
# Killed, it would not have all that it acknowledged: what it knows of its objects is written every few seconds.
end_signal=TERM
