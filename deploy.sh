#!/usr/bin/env bash
# Sets everything up, starts the lab, and has McNamara scan this repository in a sandbox.
set -euo pipefail
cd "$(dirname "$0")"
root=$PWD

usage() {
  cat <<'TEXT'
./deploy.sh             set everything up, start the lab, scan this repository in a sandbox
./deploy.sh --no-demo   the same without the scan
./deploy.sh --no-model  the same without fetching a small local model (1.1 GB)
./deploy.sh --agents    the same with agents of others for madlab code: codex, mini-swe-agent (about 1 GB)
./deploy.sh --stop      stop the lab; everything it knows stays
./deploy.sh --unit      print a systemd unit for this lab
./deploy.sh --help      this

--no-demo, --no-model and --agents can be given together. Safe to run again: what is there already is
left as it is. The lab's data is in $MADLAB_HOME, else in .madlab/ here.
TEXT
}

# Prints a unit that keeps the lab running; for `systemctl --user`, or for the system when printed by root.
unit() {
  local target=default.target
  if [ "$(id -u)" -eq 0 ]; then target=multi-user.target; fi
  cat <<TEXT
[Unit]
Description=madlab, a laboratory of AI agents ($root)
After=docker.service
Wants=docker.service

[Service]
ExecStart="$root/.venv/bin/madlab" --home "$home" up --foreground
KillMode=process
KillSignal=SIGTERM
Restart=on-failure
RestartSec=1
NoNewPrivileges=yes
PrivateTmp=no

[Install]
WantedBy=$target
TEXT
}

home=${MADLAB_HOME:-$root/.madlab}
demo=yes
model=qwen2.5-coder-1.5b
agents=
for word in "$@"; do
  case "$word" in
    --no-demo) demo=no ;;
    --no-model) model= ;;
    --agents) agents=hopper-agents ;;
    --stop | --unit | --help | -h) if [ $# -gt 1 ]; then usage >&2; exit 2; fi ;;
    *) usage >&2; exit 2 ;;
  esac
done
case "${1:-}" in
  --stop)
    if [ ! -x .venv/bin/madlab ]; then echo "deploy.sh: nothing was deployed here." >&2; exit 0; fi
    exec .venv/bin/madlab down
    ;;
  --unit) unit; exit 0 ;;
  --help | -h) usage; exit 0 ;;
esac

. .ci/steps.sh
python=.venv/bin/python

step "Python environment (.venv)"
ensure_environment requirements.txt

step "What isolates"
needed=$("$python" -m core.ranking)  # by the settings of this lab: runc, runsc, bwrap
images="base mcnamara hopper marco playfair ${model:+llama}"
weaker="the kernel is the machine's own as with runc; images of others cannot be run; without root the sandboxes are
      your own user outside their namespaces and may lack limits. What holds here, 'madlab doctor' finds out, and a run
      on less than its profile accepts (least = \"container\") is refused"
case " $needed " in
  *" bwrap "*)
    engine_bubblewrap || stop_with "the settings name bubblewrap: do what is said above and run this again."
    printf '      bubblewrap, as %s says. Against Docker it is weaker in this:\n      %s.\n' "$home/madlab.toml" "$weaker"
    ;;
esac
case " $needed " in
  *" runc "* | *" runsc "*)
    engine_ensure || {
      printf '\n      Without Docker there is bubblewrap, for who chooses it. Put this into %s:\n' "$home/madlab.toml" >&2
      printf '        [sandbox]\n        runtime = "bwrap"\n      It is weaker: %s.\n\n' "$weaker" >&2
      stop_with "sandboxes need a Docker engine: do what is said above and run this again."
    }
    engine_gvisor "$root/$python"
    ;;
esac

step "Images of this lab (no registry needed)"
# shellcheck disable=SC2086  # several words
case " $needed " in *" runc "* | *" runsc "*) ensure_images $images ;; esac
# shellcheck disable=SC2086
case " $needed " in *" bwrap "*) ensure_images --engine bubblewrap $images ;; esac

if [ -n "$agents" ]; then
  step "Agents of others: codex, mini-swe-agent (about 1 GB; the first time takes some minutes)"
  case " $needed " in *" runc "* | *" runsc "*) ensure_images "$agents" ;; esac
  case " $needed " in *" bwrap "*) ensure_images --engine bubblewrap "$agents" ;; esac
fi

if [ -n "$model" ]; then
  step "A small local model, so that the lab thinks without a key ($model)"
  .venv/bin/madlab --home "$home" model install "$model" ||
    printf '      The lab goes on without it. Try again with: .venv/bin/madlab model install %s\n' "$model"
fi

step "The core"
# A core that started before the code or its settings changed is replaced; runs in progress go on.
if [ -n "$(find core protos sandbox periphery "$home/madlab.toml" -newer "$home/lock" \
  \( -name '*.py' -o -name '*.toml' \) -print -quit 2>/dev/null)" ]; then
  .venv/bin/madlab down --keep-runs 2>&1 | sed 's/^/      /'
fi
.venv/bin/madlab up | sed 's/^/      /'

if [ "$demo" = yes ]; then
  step "McNamara scans this repository in a sandbox"
  report=$home/report.json
  .venv/bin/madlab scan . --out "$report"
fi
steps_done

socket=$("$python" -c 'from core.home import Home; print(Home.find().api_socket)')
cat <<TEXT

The lab listens at $socket (HTTP and JSON, for this user only).
${report:+The report is in $report
}
$(.venv/bin/madlab models --json | "$python" -c '
import json, sys
models = json.load(sys.stdin)["models"]
first = next((each for each in models if each["is_default"]), None)
if first is None:
    print("No model serves: the lab scans, and does not think. See: madlab model install, madlab provider add.")
else:
    print("The model", first["alias"], "serves.", first["note"])
')

Try next (or put .venv/bin on your PATH):
  .venv/bin/madlab open                    the lab's page: what needs you, what goes on, what it cost
  .venv/bin/madlab status                  the same in a few lines
  .venv/bin/madlab runs                    the runs of its agents, newest first
  .venv/bin/madlab scan PATH               a directory, a repository, a wheel, a zip or tar of your own
  .venv/bin/madlab code "GOAL" --repo PATH  have code written; you get a patch that was tested in a clean sandbox
  .venv/bin/madlab browse URL "GOAL"       what stands on a page, and what it says to a question
  .venv/bin/madlab tools                   what its agents can do
  .venv/bin/madlab doctor                  what is weak on this machine
  ./deploy.sh --stop                       stop it
TEXT
if [ -n "$agents" ]; then
  echo '  .venv/bin/madlab code "GOAL" --agent codex  the same by an agent of others; also: --agent mini-swe-agent'
fi
if [ -d /run/systemd/system ]; then
  echo "  ./deploy.sh --unit                       a systemd unit that keeps it running"
fi
