#!/usr/bin/env bash
# Install the Debian packages of a list where their programs are not there yet: as root with apt,
# else say which. Prints nothing when nothing is missing. A list has lines `package program`.
#
# Whatever the packages start of their own (a cluster on 5432, a pooler on 6432) is left alone:
# the tests run their own servers, on free ports and on data of their own.
set -euo pipefail
list=$1
export PATH="$PATH:/usr/sbin:/sbin" # an ordinary user's PATH lacks where daemons are

find_missing() {
    missing=()
    local package program
    while read -r package program; do
        [[ $package == "" || $package == "#"* ]] && continue
        command -v "$program" >/dev/null || missing+=("$package")
    done <"$list"
}

refuse() {
    echo "error: $1: ${missing[*]}" >&2
    echo "hint: sudo apt-get install --no-install-recommends ${missing[*]}" \
        "(Debian 12; elsewhere from apt.postgresql.org), then make test-system again" >&2
    exit 1
}

find_missing
((${#missing[@]})) || exit 0
[[ $(id -u) == 0 ]] && command -v apt-get >/dev/null ||
    refuse "system packages are missing, and only root can install them with apt"

output=$(mktemp)
trap 'rm -f "$output"' EXIT
echo "installing ${missing[*]}"
apt() { DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" >"$output" 2>&1; }
# A list that cannot be brought up to date (no network) may still do.
apt update || cat "$output" >&2
apt install -y --no-install-recommends "${missing[@]}" || {
    cat "$output" >&2
    refuse "apt could not install what is missing"
}
find_missing
((${#missing[@]} == 0)) || refuse "installed, but without the programs that the tests need"
