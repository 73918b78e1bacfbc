#!/usr/bin/env bash
# The Rust client as somebody new takes it: packaged, in a crate of their own, the blocks of its README as they are, in order, against a dev
# server.
#
#   tests/clients-rust.sh MAYFLY TARGET
export CARGO_HOME=${CARGO_HOME:-$HOME/.cargo} RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup} CARGO_TARGET_DIR=$2/newcomer
root=$(cd "$(dirname "$0")/.." && pwd)
source "$(dirname "$0")/typed.sh"

# As a registry would have them: with nothing that is not in the packages. Always at the same place, so that they are built once.
packages=$CARGO_TARGET_DIR/packages
packed() {
    (cd "$root" && CARGO_TARGET_DIR=$work/packed cargo package --quiet --no-verify --allow-dirty -p mayfly-verify -p mayfly-client) &&
        rm -rf "$packages" && mkdir -p "$packages" &&
        for crate in "$work"/packed/package/*.crate; do tar -xzf "$crate" -C "$packages"; done
}
check "the crates are packaged" 0 packed
client=$(echo "$packages"/mayfly-client-*)

mkdir -p "$work/newcomer/src/bin"
cd "$work/newcomer"
cargo init --quiet --vcs none --name newcomer . && rm src/main.rs
awk -v dir=src/bin '/^```rust/ { n++; out = dir "/block" n ".rs"; next } /^```/ { out = ""; next } out { print >out }' "$root/clients/rust/README.md"
blocks=$(find src/bin -name '*.rs' | wc -l)
# The versions that the project was tested with.
cp "$root/Cargo.lock" .
printf '[patch.crates-io]\nmayfly-verify = { path = "%s" }\n' "$packages"/mayfly-verify-* >>Cargo.toml
adds() { # The README's own commands, from the project's root as they are written.
    awk '/^```sh/ { on = 1; next } /^```/ { on = 0 } on' "$root/clients/rust/README.md" | sed "s#clients/rust#$client#" |
        while read -r line; do $line --quiet; done
}
check "what the README says to add" 0 adds
check "it builds" 0 cargo build --quiet

tree() { cargo tree --quiet --prefix none --edges normal --package mayfly-client | sed 's/ (.*//' | sort -u; }
tree >"$work/tree"
for out in redb sled cedar-policy axum ring rsa openssl clap moka; do
    verdict "no $out in it" "$(grep -q "^$out v" "$work/tree" && echo "$out is" || echo yes)"
done
for once in rustls tonic hyper h2 prost; do
    verdict "one $once" "$([ "$(grep -c "^$once v" "$work/tree")" = 1 ] && echo yes || echo more)"
done
echo "mayfly-client is built of $(wc -l <"$work/tree") crates"

check "dev up" 0 up
as() { # as NAME COMMAND...: as one of the sample workloads, by the variables of the README
    local svid=$world/svid/$1
    shift
    MAYFLY_ADDRESS=127.0.0.1:$port MAYFLY_SERVER_ID=spiffe://dev.mayfly.internal/mayfly MAYFLY_SVID=$svid/svid.pem \
        MAYFLY_KEY=$svid/key.pem MAYFLY_BUNDLE=$world/bundle.pem MAYFLY_ISSUER=https://localhost:$((port + 2))/dev \
        timeout 60 "$@"
}
verdict "the README has three blocks" "$([ "$blocks" = 3 ] && echo yes || echo "$blocks")"
check "block 1: a credential" 0 as agent/demo "$CARGO_TARGET_DIR/debug/block1"
says "it says where to send it" out "GET http://127.0.0.1:7780/page"
silent "and not what" out "eyJ"
check "block 2: several credentials" 0 as agent/demo "$CARGO_TARGET_DIR/debug/block2"
says "all are issued" out "read with"
says "or the error names the upstream" out "attic refused: NOT_FOUND: attic: "
silent "and no token is shown" out "eyJ"
check "block 3: checking" 0 as service/echo "$CARGO_TARGET_DIR/debug/block3"
says "it asks for a credential" out "401"
says "and says where to get one" out "resource_metadata="
check "without an address" 1 "$CARGO_TARGET_DIR/debug/block1"
says "it says what is missing" err "MAYFLY_ADDRESS is not set"

ended clients-rust
