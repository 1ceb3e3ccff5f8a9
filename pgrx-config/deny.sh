#!/bin/sh
# Licences, bans and sources of everything we depend on, and what RustSec's database knows against it:
# the one that `cargo audit` reads, too.
set -eu
cd "$(dirname "$0")/.."

cargo deny --locked --log-level error check --hide-inclusion-graph licenses bans sources

# A lint that fails because a server elsewhere is down says nothing about our code; one that is silent
# about it would say too much.
if said=$(cargo deny --locked --log-level error fetch db 2>&1); then
    cargo deny --locked --offline --log-level error check --hide-inclusion-graph advisories
else
    echo "advisories NOT CHECKED: database unreachable" >&2
    echo "$said" | sed 's/^/    /' >&2
fi
