#!/bin/sh
# The present sources as the next minor version, built: a library and a worker that the tests upgrade to.
#
#   next.sh VERSION FOLDER     the folder gets pg_klaxon.so and klaxon
set -eu
cd "$(dirname "$0")/.."
version=$1
mkdir -p "$2/tree"
folder=$(cd "$2" && pwd)
git ls-files -z | xargs -0 tar -c | tar -x -C "$folder/tree"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$folder/target}"
cd "$folder/tree"
sed -i "/^\[workspace.package\]/,/^\[/s/^version = .*/version = \"$version\"/" Cargo.toml
major=$("${PG_CONFIG:-/usr/bin/pg_config}" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
cargo build --release --lib -p pg_klaxon --no-default-features --features "pg$major"
cp "$CARGO_TARGET_DIR/release/libpg_klaxon.so" "$folder/pg_klaxon.so"
cargo build --release -p klaxon
cp "$CARGO_TARGET_DIR/release/klaxon" "$folder/klaxon"
