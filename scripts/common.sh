# What the scripts share: packages, configuring, building. Sourced by bash, not run.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$root/build

say() { printf '\n== %s\n' "$*"; }

# print_help FILE: the comment at its beginning.
print_help() { awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$1"; }

# ---- Packages --------------------------------------------------------------------------------
#
# One list per purpose, in Debian's names. Behind each name stands how to see without the package
# manager that what it brings is there: a command, pc:MODULE for pkg-config, or - for no way.

packages_to_build=(
    "gcc cc"
    "libc6-dev -"
    "cmake cmake"
    "ninja-build ninja"
    "pkg-config pkg-config"
    "libsodium-dev pc:libsodium"
    "libhwloc-dev pc:hwloc"
    "libjansson-dev pc:jansson"
)
packages_to_test=(
    "g++ c++"
    "libcmocka-dev pc:cmocka"
    "procps ps"
    "python3 python3"
    "iproute2 ip"
)
packages_to_test_all=(
    "clang clang"
    "clang-format clang-format"
    "clang-tidy clang-tidy"
    "cppcheck cppcheck"
    "openmpi-bin mpirun.openmpi"
    "libopenmpi-dev -"
    "libmpich-dev -"
    "mpich mpirun.mpich"
)

package_is_there() { # NAME PROBE
    case $2 in
    -) ;;
    pc:*) pkg-config --exists "${2#pc:}" 2>/dev/null && return 0 ;;
    *) command -v "$2" >/dev/null && return 0 ;;
    esac
    if command -v dpkg-query >/dev/null; then
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
    else
        [ "$2" = - ]
    fi
}

apt_install() { # NAME...
    local as_root=() log
    if [ "$(id -u)" -ne 0 ]; then
        if ! sudo -n true 2>/dev/null; then
            echo "These packages are missing, and installing them takes root. Run this, then try again:"
            echo "    sudo apt-get update && sudo apt-get install --no-install-recommends $*"
            exit 2
        fi
        as_root=(sudo -n)
    fi
    say "Installing $*"
    log=$(mktemp)
    # A list that cannot be fetched is not fatal: the packages may be known or fetched already.
    "${as_root[@]}" apt-get -q -o DPkg::Lock::Timeout=300 update </dev/null >"$log" 2>&1 ||
        tail -n 5 "$log"
    if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 \
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
        install "$@" </dev/null >"$log" 2>&1; then
        tail -n 20 "$log"
        rm -f "$log"
        echo "apt-get could not install: $*"
        exit 2
    fi
    rm -f "$log"
}

# ensure_packages "NAME PROBE"...: installs what is missing, or says how to and exits with 2.
ensure_packages() {
    local entry missing=()
    for entry in "$@"; do
        # shellcheck disable=SC2086 # two words
        package_is_there $entry || missing+=("${entry%% *}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if ! command -v apt-get >/dev/null; then
        echo "Missing, by their names in Debian and Ubuntu: ${missing[*]}"
        echo "Install what your system calls them with its package manager, then try again."
        exit 2
    fi
    apt_install "${missing[@]}"
}

# ---- Building --------------------------------------------------------------------------------

# build_tree FOLDER CMAKE_OPTIONS...: configures and builds; says little unless it fails.
build_tree() {
    local tree=$1 cache=$1/CMakeCache.txt log
    shift
    # A tree that was configured for a checkout elsewhere, or for make, is configured anew.
    if [ -f "$cache" ] && ! { grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$root" "$cache" &&
        grep -qx 'CMAKE_GENERATOR:INTERNAL=Ninja' "$cache"; }; then
        rm -rf "$cache" "$tree/CMakeFiles"
    fi
    mkdir -p "$tree"
    log=$tree/configure.log
    if ! cmake -S "$root" -B "$tree" -G Ninja "$@" >"$log" 2>&1; then
        cat "$log"
        return 1
    fi
    ninja --quiet -C "$tree"
}
