#!/bin/sh
# The wheel and the source archive, built with the locked setuptools; refuses to hand out a wheel without the browser part.
set -eu
cd "$(dirname "$0")/.."
rm -rf dist build/lib build/bdist.*
mkdir -p dist
# The oldest time that a zip can hold: the same sources are the same wheel, and the same release on the hosts, whenever built.
export SOURCE_DATE_EPOCH=315532800
printf '== building wheel and source archive\n'
for kind in wheel sdist; do
    "$VENV/bin/python" -c "from setuptools import build_meta; build_meta.build_$kind('dist')" >build/dist.log 2>&1 ||
        { cat build/dist.log >&2; exit 1; }
done
"$VENV/bin/python" - dist/*.whl <<'CHECK'
import sys, zipfile
names = zipfile.ZipFile(sys.argv[1]).namelist()
if not any(name.startswith("pingmon/static/") for name in names):
    sys.exit("the wheel has no pingmon/static: run `make frontend` and read what it says, then `make dist` again.")
CHECK
"$VENV/bin/python" roles/pingmon_common/files/wheelhouse_project.py .
ls -l dist | awk 'NR > 1 { print $5, "bytes", "dist/" $9 }'
