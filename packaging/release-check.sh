#!/bin/sh
# Whether the tree could be released: everything says the same version, the changelog has something to say of it, and no
# script that has been released was edited.
set -eu
cd "$(dirname "$0")/.."
version=$(sed -n "s/^default_version = '\(.*\)'/\1/p" extension/pg_klaxon.control)
failed=0
fail() {
    echo "release-check: $1" >&2
    failed=1
}
same() {
    [ "$2" = "$version" ] || fail "$1 says \"$2\", extension/pg_klaxon.control \"$version\""
}
echo "$version" | grep -Eqx '[0-9]+\.[0-9]+\.[0-9]+' || fail "\"$version\" is no version"
same Cargo.toml "$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)"
same Makefile "$(sed -n 's/^VERSION *:= *//p' Makefile)"
for number in $(sed -n 's/^ *"version": "\(.*\)",*$/\1/p' META.json); do
    same META.json "$number"
done
for crate in klaxon klaxon-model klaxon-channel pg_klaxon; do
    same "Cargo.lock ($crate)" "$(sed -n "/^name = \"$crate\"$/{n;s/^version = \"\(.*\)\"/\1/p}" Cargo.lock)"
done
sed -n "/^## $version\( \|$\)/,/^## /p" CHANGELOG.md | grep -q '^- ' || fail "CHANGELOG.md has nothing of $version"
[ -f "sql/pg_klaxon--$version.sql" ] || fail "sql/pg_klaxon--$version.sql is not there: run \"make schema\""
grep -q "sql/pg_klaxon--$version.sql" META.json || fail "META.json provides another file than sql/pg_klaxon--$version.sql"
for tag in $(git tag --list 'v[0-9]*'); do
    for script in $(git ls-tree -r --name-only "$tag" -- sql | grep '/pg_klaxon--.*\.sql$' || true); do
        git diff --quiet "$tag" -- "$script" || fail "$script was released with $tag and has been edited since"
    done
    released=${tag#v}
    [ "$released" = "$version" ] || ls sql/pg_klaxon--"$released"--*.sql >/dev/null 2>&1 || fail "no script leads on from $released"
done
[ "$failed" -eq 0 ] && echo "release-check: $version"
exit "$failed"
