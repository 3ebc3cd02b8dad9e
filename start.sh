#!/usr/bin/env bash
# Sets Floe up in .venv/ on Debian or Raspberry Pi OS, then runs it. Touches the distribution's packages and .venv/ only.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
venv=$root/.venv
stamp=$venv/floe-set-up
log=
# Debian keeps daemons where the PATH of an ordinary user does not look.
PATH=$PATH:/usr/local/sbin:/usr/sbin

usage() {
    cat <<'TEXT'
./start.sh               a menu
./start.sh demo [...]    set up, then a whole federation on this machine (flags of `floe demo`: --ui shows it in a browser)
./start.sh ui [...]      set up, then the page: watch and steer the federation of this folder in a browser
./start.sh test [...]    set up, then every check and test (arguments of pytest)
./start.sh setup         set up only
./start.sh COMMAND ...   set up, then `floe COMMAND ...`: broker, aggregator, join, client, prepare, models, tail, ...
./start.sh shell         a shell in which `floe` is found
TEXT
}

# --- telling -------------------------------------------------------------------------------------------------------
# Everything goes to stderr: stdout belongs to the command that runs afterwards (`floe demo --json`).

if [[ -t 2 && -z ${NO_COLOR:-} ]]; then bold=$'\e[1m' red=$'\e[31m' plain=$'\e[0m'; else bold='' red='' plain=''; fi

say() { printf '%s\n' "$*" >&2; }

stop() {
    say "${red}start.sh:${plain} $*"
    exit 1
}

# step NAME COMMAND...: one line with the seconds it took; its output goes to the log, shown when it fails.
step() {
    local name=$1 begin=$SECONDS
    shift
    [[ -n $log ]] || log=$(mktemp --tmpdir floe-set-up.XXXXXX.log)
    printf '  %-46s' "$name" >&2
    # Without the lock (9): a service that apt starts would inherit it and keep it. In a subshell: what Ctrl-C says
    # belongs on the screen.
    if ! ("$@") >>"$log" 2>&1 9<&-; then
        say "${red}failed${plain} after $((SECONDS - begin)) s"
        tail -n 15 "$log" | sed 's/^/    /' >&2
        stop "$name: failed; the whole log is $log; the next run starts again from here"
    fi
    say "$((SECONDS - begin)) s"
}

# --- set-up --------------------------------------------------------------------------------------------------------

# missing_packages WHAT: for what is going to be run.
missing_packages() {
    command -v mosquitto >/dev/null || echo mosquitto
    { command -v mosquitto_sub && command -v mosquitto_pub; } >/dev/null || echo mosquitto-clients
    # A Python of one's own brings venv along; Debian splits it off.
    if ! [[ -x $venv/bin/python ]] && ! { find_python && "$python" -c 'import ensurepip, venv' 2>/dev/null; }; then
        echo python3-venv
    fi
    # The page's tests look at it in a real browser.
    if [[ $1 == test ]] && ! command -v chromium >/dev/null; then echo chromium; fi
}

install_packages() {
    local packages=("$@") as_root=() apt
    apt="apt-get install -y ${packages[*]}"
    command -v apt-get >/dev/null || stop "please install ${packages[*]} (no apt-get here), then run this again"
    if ((EUID != 0)); then
        # Without a terminal nobody could type a password.
        if ! sudo -n true 2>/dev/null && ! { [[ -t 0 ]] && sudo -v; }; then
            stop "${packages[*]}: not installed, and only root may. Run this as root, then start again:
    apt-get update && $apt"
        fi
        as_root=(sudo)
    fi
    as_root+=(env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300)
    step "package lists" "${as_root[@]}" update
    step "packages: ${packages[*]}" "${as_root[@]}" install -y --no-install-recommends "${packages[@]}"
}

# Sets python to the first interpreter that is new enough.
find_python() {
    for python in python3 python3.11 python3.12 python3.13; do
        if command -v "$python" >/dev/null && new_enough "$python"; then return; fi
    done
    return 1
}

check_python() {
    # Where there is none at all, the package python3-venv brings it.
    if new_enough "$venv/bin/python" || find_python || ! command -v python3 >/dev/null; then return; fi
    stop "Python 3.11 or newer is needed, found $(python3 --version 2>&1).
    Debian 12 and Raspberry Pi OS bookworm, and what came after them, have it."
}

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# What the environment was made from; another place counts too, because its scripts carry absolute paths.
wanted() {
    sha256sum "$root/requirements.txt" "$root/pyproject.toml"
    "$venv/bin/python" -c 'import sys; print(sys.version, sys.prefix)' 2>/dev/null
}

up_to_date() { [[ -f $stamp && $(<"$stamp") == "$(wanted)" ]]; }

# Whether there is an environment that can be brought up to date instead of made anew.
usable() {
    [[ $(head -n 1 "$stamp" 2>/dev/null) != unfinished ]] && new_enough "$venv/bin/python" &&
        pip --version >/dev/null 2>&1
}

make_environment() {
    if ! usable; then
        find_python
        step "environment ($("$python" --version))" new_environment
    fi
    # Until the last line is reached, the next run takes nothing in here for granted.
    echo unfinished >"$stamp"
    step "Python packages, pinned" python_packages
    step "$(torch_pin), CPU" torch
    check_torch
    step "floe" pip install --no-deps --no-build-isolation -e "$root"
    wanted >"$stamp"
}

new_environment() {
    rm -rf "$venv" && mkdir "$venv" && echo unfinished >"$stamp" && "$python" -m venv "$venv"
}

pip() { PIP_NO_INPUT=1 PIP_PROGRESS_BAR=off "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

# Torch apart: what plain pip finds under its name carries CUDA, on aarch64 too, 3 GB that no device can use.
python_packages() {
    grep -v '^torch==' "$root/requirements.txt" >"$venv/without-torch.txt" &&
        pip install --only-binary=:all: -r "$venv/without-torch.txt"
}

torch_pin() { grep '^torch==' "$root/requirements.txt"; }

# A local wheel (PIP_FIND_LINKS) first; else uv, which knows where the builds for CPUs are.
torch() {
    pip install --no-index --no-deps "$(torch_pin)" ||
        "$venv/bin/uv" pip install --python "$venv/bin/python" --no-deps --torch-backend=cpu "$(torch_pin)"
}

check_torch() {
    local cuda
    cuda=$("$venv/bin/python" -W ignore -c 'import torch; print(torch.version.cuda)' 2>>"$log") ||
        stop "torch is installed but cannot be imported on this machine ($(uname -m)): see $log"
    [[ $cuda == None ]] && return
    pip uninstall -q -y torch >>"$log" 2>&1 || true
    stop "the torch that was found is built for CUDA $cuda; a build for CPUs is needed. It was removed again;
    give a folder with a wheel for CPUs as PIP_FIND_LINKS, or look into $log"
}

# set_up WHAT: whatever is needed to run it.
set_up() {
    local packages
    # One at a time; the lock is the folder itself and ends with this process.
    exec 9<"$root"
    flock -n 9 || { say "Another set-up is running here; waiting for it."; flock 9; }
    trap 'say; say "start.sh: interrupted; the next run repairs what is half done"; exit 130' INT TERM
    check_python
    mapfile -t packages < <(missing_packages "$1")
    if ((${#packages[@]})); then install_packages "${packages[@]}"; fi
    if ! up_to_date; then
        say "${bold}Setting Floe up in $venv${plain}"
        make_environment
        say "Set up in $SECONDS s."
    fi
    trap - INT TERM
    exec 9<&-
    if [[ -n $log ]]; then rm -f "$log"; fi
    export PATH=$venv/bin:$PATH VIRTUAL_ENV=$venv
}

# --- running -------------------------------------------------------------------------------------------------------

# All of them run; the code is the first failure's. Pytest is last, and so is its closing line.
run_tests() {
    local code=0
    cd "$root"
    check ruff check .
    check ruff format --check .
    check mypy
    check pytest -n 2 --dist worksteal "$@"
    exit "$code"
}

check() {
    local result=0
    say "${bold}$*${plain}"
    "$@" || result=$?
    if ((code == 0)); then code=$result; fi
}

menu() {
    local choice rest
    say "${bold}Floe${plain}: federated learning on the edge"
    PS3="number (Ctrl-D leaves): "
    select choice in demo 'demo --ui' test ui broker aggregator join client prepare models tail shell; do
        case $choice in
        '') say "a number from the list, please" ;;
        'demo --ui') run demo --ui ;;
        demo | test | ui | broker | aggregator | shell) run "$choice" ;;
        *)
            set_up "$choice"
            floe "$choice" --help >&2 || true
            IFS= read -r -p "floe $choice " rest || exit 0
            # Words as a shell would split them, quotes included, but nothing expanded or run.
            mapfile -d '' -t words < <(xargs -r printf '%s\0' <<<"$rest")
            run "$choice" "${words[@]}"
            ;;
        esac
    done
}

run() {
    local what=$1
    shift
    set_up "$what"
    case $what in
    setup) say "Ready: $venv/bin/floe" ;;
    test) run_tests "$@" ;;
    shell) exec "${SHELL:-bash}" "$@" ;;
    *) exec floe "$what" "$@" ;;
    esac
}

case ${1:-} in
'')
    if [[ -t 0 && -t 1 ]]; then menu; else
        usage >&2
        exit 2
    fi
    ;;
-h | --help) usage ;;
*) run "$@" ;;
esac
