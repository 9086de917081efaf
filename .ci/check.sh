#!/bin/sh
# The house rules, all at once: lint, format, types, import layers, browser part, and with `quick` the unit tests too.
# Output of a step is shown only when it fails; the time of each is. Must not know: what the rules are (setup.cfg, pyproject.toml).
set -u
cd "$(dirname "$0")/.."
VENV=${VENV:-.venv}
PATH="$(pwd)/$VENV/bin:$PATH"
out=build/check
rm -rf "$out" && mkdir -p "$out"
begun=$(date +%s)

# start NAME COMMAND...: in the background; leaves NAME.log, NAME.code and NAME.seconds.
start() {
    name=$1
    shift
    (
        from=$(date +%s)
        "$@" >"$out/$name.log" 2>&1 </dev/null
        code=$?
        echo $(($(date +%s) - from)) >"$out/$name.seconds"
        echo $code >"$out/$name.code"
    ) &
    names="${names:-} $name"
}

# unit_tests: one process more than there are processors, since many a test waits for a moment; the longest files are
# shared out to the end. With byte code, whatever the caller's habit: every process would compile all of it again.
unit_tests() {
    PYTHONDONTWRITEBYTECODE='' python -m pytest -q -m "not e2e and not root and not slow" --durations=5 \
        -n $(($(nproc) + 1)) --maxprocesses 8 --dist worksteal
}

start types mypy
[ "${1:-}" != quick ] || start unit-tests unit_tests
start lint ruff check .
start format ruff format --check .
start layers lint-imports
[ ! -d pingmon/frontend/node_modules ] || start browser-types npm run --silent check --prefix pingmon/frontend
wait

failed=""
for name in $names; do
    code=$(cat "$out/$name.code")
    if [ "$code" = 0 ]; then
        printf '%-14s ok      %3s s\n' "$name" "$(cat "$out/$name.seconds")"
    else
        printf '%-14s FAILED  %3s s\n' "$name" "$(cat "$out/$name.seconds")"
        cat "$out/$name.log"
        failed="$failed $name"
    fi
done
[ "${1:-}" != quick ] || [ ! -f "$out/unit-tests.log" ] || tail -n 1 "$out/unit-tests.log"
if [ -n "$failed" ]; then
    printf 'failed after %s s:%s\n' $(($(date +%s) - begun)) "$failed" >&2
    exit 1
fi
printf 'house rules kept, in %s s\n' $(($(date +%s) - begun))
