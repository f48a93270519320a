# shellcheck shell=bash
# What scripts/demo and scripts/test need before they can start; sourced by both.
#
#   set_up WHAT…   programs by apt-get where they are missing, then .venv in the checkout; WHAT is
#                  an architecture that QEMU is to emulate, test-tools, firmware-tools, …
#
# After it, the current directory is the checkout and $python is the environment's.
# Nothing is installed, and apt is not even asked, where everything is there already.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
venv=$root/.venv
python=$venv/bin/python

# Ours to remake when it is broken; an environment without it is the user's, and only used.
marker=$venv/.pytest-hil-made
stamp=$venv/.pytest-hil-stamp

say() { printf '== %s\n' "$*" >&2; }
fail() {
    printf '%s: %s\n' "$(basename -- "$0")" "$*" >&2
    exit 1
}

set_up() {
    cd -- "$root" || exit 1
    [ "$(uname -s)" = Linux ] || fail "pytest-hil runs on Linux only"
    # A service or a container may have no HOME; pip and the cache need one.
    if [ -z "${HOME:-}" ]; then
        HOME=$(getent passwd "$(id -u)" | cut -d: -f6)
        export HOME
    fi
    # Two scripts in one checkout take turns. The lock is on the directory itself: no file is left.
    exec 9<"$root"
    if command -v flock >/dev/null && ! flock --nonblock 9; then
        say "waiting for another script's set-up in this checkout"
        # Some network file systems have no locks; then there are no turns to take.
        flock 9 || say "this file system has no locks; going on without"
    fi
    install_programs "$@"
    make_environment
    exec 9<&-
}

# -- programs ---------------------------------------------------------------------------------

# Sets missing_packages (Debian's names) and missing (what was looked for).
look_for_programs() {
    local architecture
    missing_packages=()
    missing=()
    for architecture in "$@"; do
        case $architecture in
        x86_64) lacks qemu-system-x86_64 qemu-system-x86 ;;
        aarch64) lacks qemu-system-aarch64 qemu-system-arm ;;
        arm*) lacks qemu-system-arm qemu-system-arm ;;
        # What single tests need: a compiler with sanitizers, a packer of old kernels, one who reads
        # our captures of USB, and what emulated boards are made of.
        test-tools)
            lacks gcc build-essential
            lacks cpio cpio
            lacks lcov lcov
            lacks lzop lzop
            lacks tshark tshark
            lacks busybox busybox-static
            lacks rb lrzsz
            lacks mkfs.ext4 e2fsprogs
            lacks ssh openssh-client
            lacks openssl openssl
            lacks fdtput device-tree-compiler
            [ -x /usr/sbin/ser2net ] || lacks ser2net ser2net
            [ -x /usr/sbin/snmpd ] || lacks snmpd snmpd
            [ -e /usr/share/ovmf/OVMF.fd ] || lacks "UEFI for QEMU" ovmf
            [ -e /usr/lib/u-boot/qemu_arm64/u-boot.bin ] || lacks "U-Boot for QEMU" u-boot-qemu
            ;;
        # A compiler for microcontrollers; large too.
        firmware-tools) lacks arm-none-eabi-gcc gcc-arm-none-eabi ;;
        # What a kernel is built with.
        kernel-tools)
            lacks gcc build-essential
            lacks flex flex
            lacks bison bison
            lacks bc bc
            [ -e /usr/include/gelf.h ] || lacks "libelf's headers" libelf-dev
            ;;
        # A daemon that tests start themselves.
        power-daemons) [ -x /usr/sbin/pdudaemon ] || lacks pdudaemon pdudaemon ;;
        # A browser, in which reports are tried; large, so that only the slow tier asks for it.
        browser-tools) command -v google-chrome >/dev/null || lacks chromium chromium ;;
        # To build a kernel module for the built-in image: headers of that very kernel.
        kernel-headers)
            lacks gcc build-essential
            has_headers || lacks "headers of the guest's kernel" "$(headers_package)"
            ;;
        # A host of another kind emulates this one, as the default target does.
        *) lacks qemu-system-x86_64 qemu-system-x86 ;;
        esac
    done
    lacks qemu-img qemu-utils
    lacks setpriv util-linux
    lacks update-ca-certificates ca-certificates
    find_python >/dev/null || {
        missing+=("Python >= 3.11 with venv")
        missing_packages+=("$(python_package)")
    }
}

# Debian and Ubuntu call it differently.
headers_package() {
    # shellcheck source=/dev/null
    if [ "$(. /etc/os-release && echo "$ID")" = ubuntu ]; then
        echo linux-headers-generic
    else
        echo linux-headers-amd64
    fi
}

# Whether the headers are there of the newest kernel that apt knows: the one in a new image.
has_headers() {
    local release
    # Hosts of another kind have no such package; the tests that need it say so.
    [ "$(uname -m)" = x86_64 ] && command -v apt-cache >/dev/null || return 0
    release=$(apt-cache depends "$(headers_package)" 2>/dev/null |
        sed -n 's/^ *Depends: linux-headers-\([0-9].*\)/\1/p' | head -n 1)
    [ -n "$release" ] && [ -e "/lib/modules/$release/build/Makefile" ]
}

# lacks PROGRAM DEBIAN-PACKAGE
lacks() {
    # Other systems have the certificates without Debian's program for them.
    [ "$1" != update-ca-certificates ] || [ ! -e /etc/ssl/certs/ca-certificates.crt ] || return 0
    command -v "$1" >/dev/null && return
    missing+=("$1")
    case " ${missing_packages[*]} " in
    *" $2 "*) ;;
    *) missing_packages+=("$2") ;;
    esac
}

install_programs() {
    look_for_programs "$@"
    if [ ${#missing[@]} -eq 0 ]; then
        return
    fi
    if ! command -v apt-get >/dev/null || [ ! -e /etc/debian_version ]; then
        tell_what_to_install
    fi
    if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
        fail "not root, and no sudo; let somebody who is: apt-get install ${missing_packages[*]}"
    fi
    say "apt-get update"
    # A broken source of somebody else's need not stop us: what we need is asked for next.
    apt update || say "apt-get update had errors; going on with the package lists that are there"
    # Only now is it known which Python the system has.
    look_for_programs "$@"
    say "apt-get install ${missing_packages[*]}"
    apt install --yes --no-install-recommends "${missing_packages[@]}" ||
        fail "could not install; do it yourself: apt-get install ${missing_packages[*]}"
    look_for_programs "$@"
    [ ${#missing[@]} -eq 0 ] || fail "still missing after apt-get: ${missing[*]}"
}

# apt-get as root; waits for its locks. What it says is shown only when it fails.
apt() {
    local log tries=0
    log=$(mktemp)
    # Its daemons must not inherit our lock, hence 9<&-.
    # RUNLEVEL: invoke-rc.d(8) then starts none of the daemons that come with it.
    until as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 LC_ALL=C apt-get -qq \
        -o DPkg::Lock::Timeout=600 "$@" >"$log" 2>&1 </dev/null 9<&-; do
        # DPkg::Lock::Timeout is about dpkg's lock; that of the package lists fails at once.
        if ! grep -q 'Could not get lock' "$log" || [ $((tries += 1)) -gt 120 ]; then
            cat "$log" >&2
            rm -f "$log"
            return 1
        fi
        [ $tries -gt 1 ] || say "waiting for another apt-get to end"
        sleep 5
    done
    rm -f "$log"
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif { : </dev/tty; } 2>/dev/null; then
        sudo -- "$@"
    else
        # Nobody is there to type a password: an error, not a prompt that waits for ever.
        sudo --non-interactive -- "$@"
    fi
}

tell_what_to_install() {
    {
        echo "$(basename -- "$0"): missing: ${missing[*]}"
        echo "This system has no apt-get, so install it by hand and start again:"
        if command -v dnf >/dev/null; then
            echo "  sudo dnf install python3 qemu-system-x86-core qemu-system-aarch64-core" \
                "qemu-system-arm-core qemu-img util-linux"
        elif command -v pacman >/dev/null; then
            echo "  sudo pacman -S python qemu-system-x86 qemu-system-aarch64 qemu-system-arm" \
                "qemu-img util-linux"
        elif command -v zypper >/dev/null; then
            echo "  sudo zypper install python311 qemu-x86 qemu-arm qemu-tools util-linux"
        else
            echo "  what Debian has in: ${missing_packages[*]}"
        fi
    } >&2
    exit 1
}

# -- the Python environment -------------------------------------------------------------------

# Prints the first Python that is new enough and can make an environment.
find_python() {
    local candidate
    for candidate in python3 /usr/bin/python3 python3.13 python3.12 python3.11 python3.14; do
        # ensurepip: Debian's python3 has venv, but not that, until python3-venv is installed.
        if command -v "$candidate" >/dev/null && "$candidate" -c \
            'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

# Debian's and Ubuntu's package for it; Ubuntu 22.04's own python3 is too old.
python_package() {
    local version
    version=$(apt-cache policy python3 2>/dev/null | sed -n 's/^ *Candidate: *\([0-9.]*\).*/\1/p')
    if [ -n "$version" ] && [ "$(printf '3.11\n%s\n' "$version" | sort -V | head -n 1)" != 3.11 ]; then
        echo python3.11-venv
    else
        echo python3-venv
    fi
}

make_environment() {
    local wanted
    wanted=$(fingerprint)
    # An empty directory is nobody's: a script was killed between its first two steps.
    rmdir -- "$venv" 2>/dev/null || true
    if [ -e "$venv" ] && [ -e "$marker" ]; then
        # A script that was killed in here has left no stamp; a moved checkout has other paths in it.
        if [ ! -e "$stamp" ] || [ "$(cat "$marker")" != "$venv" ] || ! works; then
            say "remaking .venv: it is broken or half-made"
            # The marker last: killed in here, the next script still knows whose this is.
            find "$venv" -mindepth 1 ! -path "$marker" -delete
            rm -r -- "$venv"
        fi
    elif [ -e "$venv" ]; then
        works || fail ".venv is there and does not work; remove it, or give it pip and Python >= 3.11"
    fi
    if [ ! -e "$venv" ]; then
        say "making .venv with $(find_python)"
        mkdir -- "$venv"
        echo "$venv" >"$marker"
        "$(find_python)" -m venv -- "$venv"
    fi
    if [ ! -e "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
        say "installing pytest-hil and what its tests need into .venv"
        rm -f -- "$stamp"
        "$python" -m pip install --quiet --disable-pip-version-check --editable "${root}[dev]" 9<&-
        echo "$wanted" >"$stamp"
    fi
}

works() {
    "$python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# Changes when the environment must be installed again: its requirements, or the agent's sources,
# which the installation compiles.
fingerprint() {
    find pyproject.toml pytest_hil/agent -type f \( -name '*.toml' -o -name '*.[ch]' \
        -o -name 'hatch_hook.py' \) -print0 | sort -z | xargs -0 sha256sum | sha256sum
}
