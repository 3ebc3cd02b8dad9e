#!/usr/bin/env bash
# Installs Floe and its systemd units on Debian or Raspberry Pi OS. Touches the prefix, /etc/floe, /var/lib/floe,
# /etc/systemd/system/floe-*.service and the account floe. Enables and starts nothing. Run again, it updates.
set -euo pipefail
# The distribution's Python: one in somebody's home is out of reach for the account floe.
PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin

source=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
prefix=/opt/floe
units=/etc/systemd/system
dry=
parts=(floe broker edge_client aggregator ui demo bench simulate deploy pyproject.toml requirements.txt README.md start.sh)

usage() {
    cat <<'TEXT'
sudo deploy/install.sh [--prefix DIR] [--dry-run]
  --prefix DIR   where the program and its environment go (default /opt/floe)
  --dry-run      print what would be done, do nothing
TEXT
}

stop() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}

# Run a command, or print it.
do_() {
    if [[ -n $dry ]]; then printf '%s\n' "${*@Q}"; else "$@"; fi
}

while (($#)); do
    case $1 in
    --prefix)
        [[ ${2:-} == /* ]] || stop "--prefix ${2:-}: an absolute path, please"
        prefix=${2%/}
        shift
        ;;
    --dry-run) dry=yes ;;
    -h | --help)
        usage
        exit
        ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
    shift
done
# systemd splits at spaces and expands % and \; sed and the units need none of the rest either.
[[ $prefix =~ ^(/[A-Za-z0-9._-]+)+$ ]] || stop "--prefix $prefix: letters, digits, '.', '_', '-' and '/' only"
[[ $prefix != "$source" ]] || stop "--prefix $prefix is this checkout itself; choose another folder"
[[ -n $dry ]] || ((EUID == 0)) || stop "writes below $prefix and $units: run it as root (sudo $0), or with --dry-run"

account() {
    getent passwd floe >/dev/null || do_ useradd --system --home-dir /var/lib/floe --shell /usr/sbin/nologin floe
    # The key and the passwords in there are the account's; other accounts have no business.
    do_ install -d -m 0750 -o floe -g floe /etc/floe /var/lib/floe
}

program() {
    local part
    do_ install -d -m 0755 "$prefix"
    for part in "${parts[@]}"; do
        do_ rm -rf "${prefix:?}/$part"
        do_ cp -R "$source/$part" "$prefix/$part"
    done
    do_ chown -R root:root "$prefix"
    do_ chmod -R go=rX "$prefix"
    do_ "$prefix/start.sh" setup
}

configuration() {
    [[ ! -e /etc/floe/floe.toml ]] || return 0
    do_ env -C /etc/floe "$prefix/.venv/bin/floe" init
    do_ chown floe:floe /etc/floe/floe.toml
    do_ chmod 0640 /etc/floe/floe.toml
}

unit() {
    if [[ -n $dry ]]; then
        printf '%s -> %s, with the prefix %s\n' "deploy/$1" "$units/$1" "$prefix"
    else
        sed "s|@prefix@|$prefix|g" "$source/deploy/$1" >"$units/$1"
        chmod 0644 "$units/$1"
    fi
}

account
program
configuration
for name in floe-broker.service floe-aggregator.service floe-client@.service floe-ui.service; do unit "$name"; done
if [[ -d /run/systemd/system ]]; then do_ systemctl daemon-reload; fi

cat <<TEXT

Next: look through /etc/floe/floe.toml. Where broker and aggregator run, once per federation:
  sudo -u floe env -C /etc/floe FLOE_PATHS_STATE=/var/lib/floe/aggregator/state $prefix/.venv/bin/floe federation new --login certificates
and on a device, with the code of \`floe invite\`:
  sudo -u floe env -C /etc/floe FLOE_PATHS_STATE=/var/lib/floe/client-NAME/state $prefix/.venv/bin/floe join CODE --id NAME
(without enrolment: a shared key, copied to every machine:  sudo -u floe env -C /etc/floe $prefix/.venv/bin/floe key new)
  sudo systemctl enable --now floe-broker floe-aggregator        where the broker and the aggregator run
  sudo systemctl enable --now floe-client@NAME                   on a device; its data: FLOE_DEVICE_DATA=... in
                                                                 /etc/floe/client-NAME.environment
  sudo systemctl enable --now floe-ui                            beside the aggregator: the page, for this machine alone
                                                                 until [ui] has a password (floe ui --new-password)
Debian starts a Mosquitto of its own on port 1883: sudo systemctl disable --now mosquitto, or another mqtt.port.
TEXT
