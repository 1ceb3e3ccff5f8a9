#!/bin/sh
# A PostgreSQL that Debian 12 has no package of, for tests, and where its pg_config is. It is the package of a later
# Debian, which apt verifies, unpacked beside the system rather than installed into it, with the libraries that it
# was built for, its C library included. Done once, and outside of the repository, where the user postgres can run it.
#
# It is not built from the sources, as it was to be: that takes 10 minutes on two cores for two versions, and mirrors that
# have the packages do not always have the sources.
#
#   pgrx-config/postgres.sh 17
set -eu
major=$1
cache=${KLAXON_POSTGRES:-/var/cache/pg_klaxon}
prefix=$cache/postgresql-$major

if [ -x "$prefix/bin/pg_config" ]; then
    echo "$prefix/bin/pg_config"
    exit
fi

case "$major" in
    17) suite=trixie ;;
    18) suite=forky ;;
    *) echo "setup: Debian has no PostgreSQL $major; give PG_CONFIG" >&2; exit 1 ;;
esac
echo "setup: unpacking PostgreSQL $major of Debian's $suite into $prefix" >&2

# A folder of whoever tests: `make install` puts the extension there.
if ! mkdir -p "$cache" 2>/dev/null || [ ! -w "$cache" ]; then
    sudo install -d -o "$(id -u)" -g "$(id -g)" "$cache"
fi
work=$cache/unpack-$major
rm -rf "$work"
mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/packages" "$work/root"
trap 'rm -rf "$work"' EXIT

# apt with lists of its own, in a system in which nothing is installed: the machine's packages stay those of its
# release, and what Postgres needs is all that is named.
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $suite main" \
    >"$work/sources.list"
: >"$work/status"
from_suite() {
    apt-get -qq -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists="$work/lists" -o Dir::State::Status="$work/status" -o Dir::Cache="$work" \
        -o APT::Install-Recommends=0 -o APT::Sandbox::User=root "$@"
}
from_suite update
from_suite --simulate install "postgresql-$major" >"$work/needed"
libraries=$(awk '$1 == "Inst" && $2 ~ /^lib/ && $2 !~ /-(perl|bin|common|modules)$|^libllvm/ { print $2 }' "$work/needed")
# shellcheck disable=SC2086 # a list of words
(cd "$work/packages" && from_suite download \
    "postgresql-$major" "postgresql-client-$major" "postgresql-server-dev-$major" $libraries)
for package in "$work/packages"/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -x --no-same-owner -C "$work/root"
done

cd "$work/root"
# Without its compiler, which would need LLVM.
rm -rf etc var usr/share/doc usr/share/locale usr/share/man usr/lib/*/gconv \
    "usr/lib/postgresql/$major/lib/bitcode" "usr/lib/postgresql/$major/lib"/llvmjit*
ln -s usr/lib lib
ln -s usr/lib64 lib64
ln -s "usr/lib/postgresql/$major/bin" bin
libraries=$prefix/usr/lib/$(dpkg-architecture -q DEB_HOST_MULTIARCH)
for program in bin/*; do
    # Some are scripts.
    interpreter=$(patchelf --print-interpreter "$program" 2>/dev/null) || continue
    patchelf --set-interpreter "$prefix$interpreter" --force-rpath --set-rpath "$libraries" "$program"
done
# Last: what was broken off is done anew.
mv "$work/root" "$prefix"
"$prefix/bin/postgres" --version >&2
echo "$prefix/bin/pg_config"
