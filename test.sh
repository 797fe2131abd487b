#!/usr/bin/env bash
# Sets up what the tests need, and passes them.
set -euo pipefail
cd "$(dirname "$0")"

usage() {
  cat <<'TEXT'
./test.sh           everything a change must pass: quick, then integration, security and fault tests in real sandboxes
./test.sh quick     format, lint, types, import rules, unit and contract tests without an engine; under a minute
./test.sh all       the whole: long fault tests, many repetitions, and the benchmarks
./test.sh fix       what a machine can mend: format, imports, generated code, schemas in manifests

Further words go to pytest: ./test.sh quick -k journal
TEXT
}

mode=default
case "${1:-}" in
  quick | all | fix) mode=$1; shift ;;
  --help | -h) usage; exit 0 ;;
esac

. .ci/steps.sh
python=.venv/bin/python

# Nothing here may reach the lab of whoever runs it: tests make their own homes, and whatever does not finds this one.
scratch=$(mktemp -d)
types= preparing=  # processes beside the steps
trap 'for each in $types $preparing; do kill "$each" 2>/dev/null || true; done; rm -rf "$scratch"' EXIT
export MADLAB_HOME=$scratch/home

# Programs that some tests need, each with its Debian package and what for.
programs() {
  cat <<'LIST'
strace strace records every write and sync of the journal, to rebuild its files as a power cut would leave them
node nodejs an eMAD written in another language, from the protos alone
rg ripgrep what Hopper searches with
LIST
  if [ "$mode" = quick ]; then return; fi
  cat <<'LIST'
bwrap bubblewrap sandboxes without Docker
chromium-headless-shell chromium-headless-shell the page is driven in a real browser
LIST
  if [ "$mode" = default ]; then return; fi
  cat <<'LIST'
redis-server redis-server the journal is measured beside Redis Streams
nats-server nats-server and beside NATS JetStream
promtool prometheus reads what /metrics says, as Prometheus would
LIST
}

# Whatever of them is missing is installed in one go, where that is allowed, and the engine started, beside the steps
# that come next. What went wrong is told by `programs_end` and, of the engine, by its own step.
programs_begin() {
  local missing
  missing=$(programs | while read -r program package _; do command -v "$program" >/dev/null || printf '%s ' "$package"; done)
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then missing=; fi
  if [ -n "$missing" ]; then printf '    installing %sbeside the next steps\n' "$missing"; fi
  # shellcheck disable=SC2086  # several words
  (
    export DEBIAN_FRONTEND=noninteractive
    install="apt-get -q install -y --no-install-recommends"
    if [ -n "$missing" ] && ! $install $missing; then
      apt-get -q update || true
      $install $missing || for each in $missing; do $install "$each" || true; done
    fi
    if [ "$mode" != quick ]; then engine_ensure; fi
  ) </dev/null >"$scratch/programs" 2>&1 &
  preparing=$!
}

programs_end() {
  wait "$preparing" || tail -n 3 "$scratch/programs"
  preparing=
  programs | while read -r program package reason; do
    command -v "$program" >/dev/null || printf '      no %s here (Debian: %s), so tests are skipped: %s\n' "$program" "$package" "$reason"
  done
}

# mypy takes half a minute where it has no cache: it runs beside what comes next, and is asked at the end.
types_begin() {
  "$python" -m mypy >"$scratch/types" 2>&1 &
  types=$!
}

types_end() {
  local code=0
  if [ -z "$types" ]; then return; fi
  step "Types"
  wait "$types" || code=$?
  types=
  cat "$scratch/types"
  steps_done
  return "$code"
}

# Several tests run at once, since many wait more than they compute; each process imports everything, so not too many.
# What measures answers under attack runs alone.
few="-n 4 --dist worksteal"
many="-n 4 --dist loadscope --no-loadscope-reorder"  # a module shares its lab; the quick ones, unit, come last
alone=tests/security/test_responsive.py
failed=0
run_tests() {
  local code=0
  "$python" -m pytest -q -rfEs "$@" || code=$?
  if [ "$code" -eq 5 ]; then printf '      no such test here\n'; elif [ "$code" -ne 0 ]; then failed=$code; fi
}

manifests() { find periphery tests/emads -name manifest.toml | sort; }

# Where Python itself must be installed first, that comes first: apt serves one at a time.
if [ "$mode" != fix ] && [ -n "$(_find_python)" ]; then programs_begin; fi
step "Python environment (.venv)"
ensure_environment requirements-dev.txt
if [ "$mode" != fix ] && [ -z "$preparing" ]; then programs_begin; fi

if [ "$mode" = fix ]; then
  step "Generated code"
  "$python" -m protos.compile
  manifests | xargs "$python" -m protos.schema
  step "Imports, format and what else a linter can mend"
  "$python" -m ruff check --fix --quiet .
  "$python" -m ruff format .
  steps_done
  exit 0
fi

step "Format and lint"
"$python" -m ruff format --check --quiet . || stop_with "some files are not formatted: run ./test.sh fix"
"$python" -m ruff check --quiet . || stop_with "the linter has questions: see above; ./test.sh fix answers some"

types_begin

step "Import rules"
.venv/bin/lint-imports --no-logo || stop_with "an import goes where it may not: see above"
programs_end

if [ "$mode" = quick ]; then
  step "Unit tests, and contract tests that need no engine"
  run_tests $few -m "not docker" tests/unit tests/contract "$@"
  types_end || failed=1
  exit "$failed"
fi

step "Docker engine"
engine_ensure || stop_with "these tests run real sandboxes and need a Docker engine: do what is said above, or run ./test.sh quick"
engine_gvisor "$PWD/$python"

step "Images"
ensure_images base mcnamara hopper marco playfair llama
if [ "$mode" = all ]; then
  ensure_images hopper-agents
  step "Small local models, which some tests ask for real"
  .venv/bin/madlab model install qwen2.5-coder-0.5b && .venv/bin/madlab model install qwen2.5-coder-1.5b ||
    printf '      without them, those tests are skipped\n'
fi

step "What each runtime is seen to stop"
.venv/bin/madlab doctor || printf '      tests that need what is missing are skipped, or say so\n'

if [ "$mode" = all ]; then
  types_end || failed=1  # nothing may run beside what is measured
  export MADLAB_FULL=1
  set -- -o faulthandler_timeout=3600 "$@"
  step "Benchmarks"
  "$python" -m tests.bench || failed=1
fi

step "Unit, contract, integration, fault, security and end-to-end tests"
[ "$mode" = all ] || printf '      at the sizes of an ordinary run: what only ./test.sh all shows is listed at the end of tests/README.md\n'
run_tests $many tests --ignore $alone "$@"
step "Answers while a worker does its worst"
run_tests $alone "$@"
types_end || failed=1
steps_done
exit "$failed"
