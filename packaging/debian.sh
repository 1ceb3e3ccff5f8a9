#!/bin/sh
# Builds Debian packages of what is built: postgresql-MAJOR-pg-klaxon and klaxon-worker.
#
#   debian.sh LIBRARY WORKER MAJOR OUT
set -eu
cd "$(dirname "$0")/.."
library=$1 worker=$2 major=$3 out=$4
version=$(sed -n "s/^default_version = '\(.*\)'/\1/p" extension/pg_klaxon.control)
architecture=$(dpkg --print-architecture)
# What is built twice of the same commit is the same.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
umask 022

# depends PROGRAM: what Debian says the program's libraries are of.
depends() {
    mkdir -p "$work/shlibs/debian"
    printf 'Source: klaxon\n\nPackage: klaxon\nArchitecture: any\n' >"$work/shlibs/debian/control"
    program=$(realpath "$1")
    (cd "$work/shlibs" && dpkg-shlibdeps -O -e"$program" 2>/dev/null) | sed -n 's/^shlibs:Depends=//p'
}

# documents NAME: what Debian wants of every package.
documents() {
    folder=$work/$1/usr/share/doc/$1
    install -d "$folder"
    {
        echo "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/"
        printf '\nFiles: *\nCopyright: the pg_klaxon authors\nLicense: Apache-2.0 or Expat\n\n'
        echo "License: Apache-2.0"
        printf ' On Debian systems it is in /usr/share/common-licenses/Apache-2.0.\n\nLicense: Expat\n'
        sed 's/^$/./; s/^/ /' LICENSE-MIT
    } >"$folder/copyright"
    gzip -9nc CHANGELOG.md >"$folder/changelog.gz"
    install -m 644 README.md "$folder/"
}

# control NAME DEPENDS SECTION: the rest of it from standard input.
control() {
    install -d "$work/$1/DEBIAN"
    {
        printf 'Package: %s\nVersion: %s\nArchitecture: %s\nSection: %s\nPriority: optional\n' "$1" "$version" "$architecture" "$3"
        printf 'Maintainer: pg_klaxon maintainers <maintainers@pg-klaxon.invalid>\nHomepage: https://github.com/pg-klaxon/pg_klaxon\n'
        printf 'Installed-Size: %s\nDepends: %s\n' "$(du -sk --exclude=DEBIAN "$work/$1" | cut -f1)" "$2"
        cat
    } >"$work/$1/DEBIAN/control"
    (cd "$work/$1" && find . -path ./DEBIAN -prune -o -type f -print | sed 's|^\./||' | LC_ALL=C sort | xargs md5sum >DEBIAN/md5sums)
    find "$work/$1" -newermt "@$SOURCE_DATE_EPOCH" -exec touch -hd "@$SOURCE_DATE_EPOCH" {} +
    dpkg-deb --root-owner-group -Zxz -z3 --build "$work/$1" "$out/${1}_${version}_$architecture.deb" >/dev/null
    echo "$out/${1}_${version}_$architecture.deb"
}

extension=postgresql-$major-pg-klaxon
install -D -m 644 "$library" "$work/$extension/usr/lib/postgresql/$major/lib/pg_klaxon.so"
install -d "$work/$extension/usr/share/postgresql/$major/extension"
install -m 644 extension/pg_klaxon.control sql/pg_klaxon--*.sql "$work/$extension/usr/share/postgresql/$major/extension/"
documents "$extension"
control "$extension" "postgresql-$major, $(depends "$library")" database <<EOF
Recommends: klaxon-worker (= $version)
Description: notifications committed with the transaction, in PostgreSQL $major
 An application that commits what happened to PostgreSQL makes telling people
 about it part of the same commit. This is the extension, which matches events
 to subscriptions and keeps what is to be delivered; klaxon-worker delivers it.
EOF

install -D -m 755 "$worker" "$work/klaxon-worker/usr/bin/klaxon"
install -D -m 644 packaging/klaxon.service "$work/klaxon-worker/lib/systemd/system/klaxon.service"
install -d -m 755 "$work/klaxon-worker/usr/share/man/man1"
install -d -m 700 "$work/klaxon-worker/etc/klaxon"
"$worker" man --out "$work/klaxon-worker/usr/share/man/man1"
gzip -9n "$work"/klaxon-worker/usr/share/man/man1/*.1
for shell in bash-completion/completions/klaxon:bash zsh/vendor-completions/_klaxon:zsh fish/vendor_completions.d/klaxon.fish:fish; do
    file=$work/klaxon-worker/usr/share/${shell%:*}
    install -d "$(dirname "$file")"
    "$worker" completions "${shell#*:}" >"$file"
done
documents klaxon-worker
install -d "$work/klaxon-worker/usr/share/doc/klaxon-worker/examples"
install -m 644 ops/alerts.yaml ops/dashboard.json "$work/klaxon-worker/usr/share/doc/klaxon-worker/examples/"
install -d "$work/klaxon-worker/DEBIAN"
install -m 755 packaging/postinst "$work/klaxon-worker/DEBIAN/postinst"
install -m 755 packaging/prerm "$work/klaxon-worker/DEBIAN/prerm"
install -m 755 packaging/postrm "$work/klaxon-worker/DEBIAN/postrm"
control klaxon-worker "$(depends "$worker")" net <<EOF
Suggests: postgresql-$major-pg-klaxon
Description: delivers what PostgreSQL transactions committed
 The worker of pg_klaxon: sends what committed transactions have to tell to
 webhooks, email, Slack, Telegram, PagerDuty, Discord, Microsoft Teams and
 ntfy, tries again what fails, and keeps a log that shows tampering.
EOF
