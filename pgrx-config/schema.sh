#!/bin/sh
# The generated schema as it is committed.
#
#   schema.sh strip FILE   without the line numbers of the sources, which change with every edit
#   schema.sh same A B     whether two have the same objects; pgrx's order of functions that do not
#                          depend on one another is not stable
set -eu

blocks() {
    awk 'BEGIN { RS = "/[*] </end connected objects> [*]/" } { gsub(/\n/, "\001"); print }' "$1" | sort
}

case "$1" in
    strip) sed -i '/^-- .*extension\/src\/.*:[0-9]*$/d' "$2" ;;
    same)
        blocks "$2" >"$3.committed.blocks"
        blocks "$3" >"$3.blocks"
        if ! cmp -s "$3.committed.blocks" "$3.blocks"; then
            diff -u "$2" "$3" || true
            echo "The committed schema is not what the sources generate: run 'make schema' and review the change." >&2
            exit 1
        fi
        ;;
    *) echo "usage: $0 strip FILE | same COMMITTED GENERATED" >&2; exit 2 ;;
esac
