#!/bin/sh
# What pingmon is made of: `supply.sh sbom` writes dist/*.cdx.json (CycloneDX, for the wheel's Python and browser parts),
# `supply.sh audit` looks the same packages up in the public vulnerability data. The tools have a venv of their own.
set -eu
cd "$(dirname "$0")/.."
tools=build/supply
PATH="$(pwd)/$tools/bin:$(pwd)/$VENV/bin:$PATH"
locked=$(cksum <requirements/audit.txt)
if [ "$(cat $tools/.done 2>/dev/null)" != "$locked" ]; then
    printf '== installing the tools for this (audit)\n'
    mkdir -p build
    "$VENV/bin/python" -m venv --clear $tools
    $tools/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/audit.txt
    echo "$locked" >$tools/.done
fi

sbom() {
    mkdir -p dist
    printf '== writing what the wheel needs and holds\n'
    cyclonedx-py requirements --output-reproducible --of JSON -o dist/pingmon-python.cdx.json requirements/run.txt 2>build/sbom.log ||
        { cat build/sbom.log >&2; exit 1; }
    (cd pingmon/frontend && npm sbom --omit=dev --sbom-format=cyclonedx) >dist/pingmon-browser.cdx.json
    # A list that lacks something is worse than none.
    python - <<'CHECK'
import json, re, sys
def listed(name):
    return {part["name"].lower() for part in json.load(open(f"dist/pingmon-{name}.cdx.json"))["components"]}
wanted = set(re.findall(r"^([\w.-]+)==", open("requirements/run.txt").read(), re.M))
browser = {n.removeprefix("node_modules/") for n, p in json.load(open("pingmon/frontend/package-lock.json"))["packages"].items()
           if n and not p.get("dev") and not p.get("optional")}
missing = (wanted - listed("python")) | ({n.split("/")[-1] for n in browser} - {n.split("/")[-1] for n in listed("browser")})
if missing:
    sys.exit(f"the bills of materials lack {sorted(missing)}: read build/sbom.log")
print(f"{len(wanted)} Python and {len(browser)} browser packages")
CHECK
}

audit() {
    code=0
    printf '== Python packages\n'
    pip-audit --disable-pip --require-hashes --strict --progress-spinner off -r requirements/run.txt || code=$?
    printf '== browser packages\n'
    (cd pingmon/frontend && npm audit --omit=dev) || code=$?
    [ $code = 0 ] || printf 'not clean, or not looked up: the lines above say which. Where this machine reaches no vulnerability data, run it on one that does.\n' >&2
    exit $code
}

"$1"
