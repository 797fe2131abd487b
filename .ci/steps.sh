# The steps that deploy.sh and test.sh share. Sourced from the root of the checkout.
#
#   step WORDS…              says what comes next, and how long the step before took
#   steps_done               ends the last step
#   stop_with SENTENCE       ends the script with one sentence, code 1
#   ensure_environment LOCK  .venv with exactly what LOCK (a hashed requirements file) names, and the command madlab
#   lab_id                   the id of the lab in $MADLAB_HOME or .madlab/, made if there is none
#   ensure_images NAME…      the images of that lab
#
# The environment's Python is .venv/bin/python, here as $python. Each can be called again; what is there already costs next to nothing.

. sandbox/engine.sh

# What Python compiled is kept: without that each command, core and test compiles all of it again.
unset PYTHONDONTWRITEBYTECODE

python=.venv/bin/python
_step_name=
_step_began=0
_steps=0

_now() { local now=$EPOCHREALTIME; printf '%s' "$((${now/[.,]/} / 1000))"; }

steps_done() {
  if [ -n "$_step_name" ]; then
    local took=$(($(_now) - _step_began))
    printf '      done in %d.%d s\n' $((took / 1000)) $((took % 1000 / 100))
  fi
  _step_name=
}

step() {
  steps_done
  _steps=$((_steps + 1))
  _step_name=$*
  _step_began=$(_now)
  printf '%2d  %s\n' "$_steps" "$*"
}

stop_with() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# Prints a Python ($MADLAB_PYTHON if that is one) that the project runs on and that can make virtual environments, or nothing.
_find_python() {
  local each
  for each in "${MADLAB_PYTHON:-}" python3.12 python3.11 python3.13 python3 \
    "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[123].*/bin/python /usr/bin/python3 /usr/local/bin/python3; do
    if [ -z "$each" ] || ! command -v "$each" >/dev/null; then continue; fi
    if "$each" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      "$each" -c 'import sys; print(sys.executable)'
      return
    fi
  done
}

_install_python() {
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then return; fi
  printf '      installing python3 and python3-venv by apt\n'
  { DEBIAN_FRONTEND=noninteractive; export DEBIAN_FRONTEND; apt-get -q update && apt-get -q install -y --no-install-recommends python3 python3-venv; } >/dev/null 2>&1 || true
}

ensure_environment() {
  local lock=$1 base said mark wanted
  mark=.venv/.installed-${lock%.txt}
  wanted=$(sha256sum "$lock" "$PWD/.ci/steps.sh" | cut -d' ' -f1 | tr '\n' ' ')$PWD
  if [ "$(cat "$mark" 2>/dev/null)" = "$wanted" ] && "$python" -c '' 2>/dev/null; then return; fi

  if ! "$python" -m pip --version >/dev/null 2>&1; then
    base=$(_find_python)
    if [ -z "$base" ]; then _install_python; base=$(_find_python); fi
    if [ -z "$base" ]; then
      stop_with "no Python 3.11, 3.12 or 3.13 with venv is here: install one (Debian: apt-get install python3 python3-venv) and run this again."
    fi
    printf '      a virtual environment of %s\n' "$("$base" --version)"
    "$base" -m venv --clear .venv || stop_with "$base could not make .venv: mend what it says above."
  fi
  printf '      installing what %s names, checked by hash\n' "$lock"
  if ! said=$("$python" -m pip install --disable-pip-version-check --no-input --quiet --only-binary :all: \
    --require-hashes --no-deps -r "$lock" 2>&1); then
    printf '%s\n' "$said" | tail -n 5 >&2
    stop_with "pip could not install $lock: see above; it needs a package index it can reach."
  fi
  _write_command
  printf '%s' "$wanted" >"$mark"
}

# The project is not built or installed: its environment is told where it is, and gets its one command.
_write_command() {
  local packages
  packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  printf '%s\n' "$PWD" >"$packages/madlab.pth"
  # Two lines that are a shell script to sh and one string to Python: an interpreter's path may hold blanks or be long.
  cat >.venv/bin/madlab.new <<COMMAND
#!/bin/sh
'''exec' "$PWD/.venv/bin/python" -I "\$0" "\$@"
' '''
from core.grace.cli.main import main

main()
COMMAND
  chmod 755 .venv/bin/madlab.new
  mv .venv/bin/madlab.new .venv/bin/madlab
}

lab_id() { "$python" -c 'from core.home import Home; print(Home.open().lab)'; }

ensure_images() {
  local lab
  lab=$(lab_id)
  "$python" -m sandbox.images --lab "$lab" build "$@" | sed 's/^/      /'
}
