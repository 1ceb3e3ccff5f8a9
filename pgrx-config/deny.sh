#!/bin/sh
# Licences, bans and sources of everything we depend on, and what RustSec's database knows against it: as deny.toml
# judges it, and as `cargo audit` does, which looks at every platform's dependencies and not at ours alone.
set -eu
cd "$(dirname "$0")/.."

cargo deny --locked --log-level error check --hide-inclusion-graph licenses bans sources

# A lint that fails because a server elsewhere is down says nothing about our code; one that is silent
# about it would say too much.
if said=$(cargo deny --locked --log-level error fetch db 2>&1); then
    cargo deny --locked --offline --log-level error check --hide-inclusion-graph advisories
    cargo audit --quiet
else
    echo "advisories NOT CHECKED by cargo deny and cargo audit: database unreachable" >&2
    echo "$said" | sed 's/^/    /' >&2
fi
