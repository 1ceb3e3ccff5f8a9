#!/bin/sh
# A RUSTC_WRAPPER by which pgrx takes the bindings that it ships, as on docs.rs, rather than those of an installed
# Postgres: for a version that is not to be had here. Of all crates only this one may be told so: for others
# `docsrs` means a nightly compiler.
#
#   DOCS_RS=1 RUSTC_WRAPPER=pgrx-config/bundled.sh cargo check …
case " $* " in
    *" --crate-name pgrx_pg_sys "*) exec "$@" --cfg docsrs ;;
    *) exec "$@" ;;
esac
