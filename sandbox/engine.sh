# Makes an engine work on this machine. Sourced by deploy.sh and test.sh: `. sandbox/engine.sh; engine_ensure`.
#
#   engine_answers          whether a Docker engine answers this user
#   engine_ensure           makes one answer, installing and starting it where that is allowed; else says in one
#                           sentence what the person must do, and returns 1
#   engine_gvisor PYTHON    offers gVisor to the engine where it can be had; never fatal
#   engine_bubblewrap       makes bubblewrap work, the engine for machines without Docker, installing it where that is
#                           allowed; else says in one sentence what the person must do, and returns 1
#
# Safe to call twice. Stops and removes nothing. Prints what it does while it does it.

engine_log=/var/log/madlab-dockerd.log

engine_answers() { timeout 10 docker info >/dev/null 2>&1; }

_engine_say() { printf '  engine: %s\n' "$*" >&2; }

# Waits until the engine answers or the process $1 (if given) has ended; $2 is the longest wait in seconds.
_engine_wait() {
  local pid=$1 limit=$2 waited=0
  until engine_answers; do
    if [ -n "$pid" ] && ! kill -0 "$pid" 2>/dev/null; then return 1; fi
    if [ "$waited" -ge "$limit" ]; then return 1; fi
    sleep 1
    waited=$((waited + 1))
    if [ $((waited % 5)) -eq 0 ]; then _engine_say "waiting for it to answer (${waited} s)"; fi
  done
}

# Starts dockerd in a session of its own, so that it outlives this script and its terminal.
_engine_start() {
  setsid nohup dockerd "$@" </dev/null >>"$engine_log" 2>&1 &
  local pid=$!
  disown "$pid" 2>/dev/null || true
  _engine_wait "$pid" 60
}

_engine_install() {
  _engine_say "installing docker.io, containerd, runc and iptables (about 25 s)"
  export DEBIAN_FRONTEND=noninteractive
  apt-get -q update >/dev/null 2>&1 || _engine_say "apt-get update failed; trying with the lists as they are"
  local said
  if ! said=$(apt-get -q install -y --no-install-recommends docker.io containerd runc iptables 2>&1); then
    printf '%s\n' "$said" | tail -n 5 >&2
    return 1
  fi
}

engine_ensure() {
  if engine_answers; then return 0; fi

  if [ "$(uname -s)" != Linux ]; then
    _engine_say "start Docker Desktop (or another Docker engine) and run this again."
    return 1
  fi
  if [ -S /var/run/docker.sock ] && [ ! -w /var/run/docker.sock ]; then
    _engine_say "one is here, but $(id -un) may not talk to it: run 'sudo usermod -aG docker $(id -un)', log in again, and run this again."
    return 1
  fi
  if [ "$(id -u)" -ne 0 ]; then
    _engine_say "none answers: have an administrator install and start Docker and add you to the group docker, then run this again."
    return 1
  fi

  if ! command -v dockerd >/dev/null; then
    if ! command -v apt-get >/dev/null; then
      _engine_say "none is installed, and only Debian and Ubuntu are handled here: install Docker, start it, and run this again."
      return 1
    fi
    if ! _engine_install; then
      _engine_say "could not be installed by apt: mend what it says above, and run this again."
      return 1
    fi
  fi

  if [ -d /run/systemd/system ]; then
    _engine_say "starting it by systemd"
    systemctl start docker >/dev/null 2>&1 || true
    _engine_wait "" 60 && return 0
  else
    # Somebody else may be starting one at this moment, as the package's own script does on some systems.
    if pgrep -x dockerd >/dev/null && _engine_wait "" 30; then return 0; fi
    _engine_say "starting dockerd"
    _engine_start && return 0
    # Sandboxes need no network of Docker's, so a machine without NAT is no obstacle.
    _engine_say "starting dockerd without a network of its own"
    _engine_start --bridge=none --iptables=false --ip6tables=false && return 0
  fi
  _engine_say "did not start: read $engine_log (or 'journalctl -u docker'), mend it, and run this again."
  return 1
}

engine_gvisor() {
  local said
  if said=$("$1" -m sandbox.gvisor 2>&1); then return 0; fi
  _engine_say "${said:-gVisor was not set up}; sandboxes use runc"
}

engine_bubblewrap() {
  local said
  if ! command -v bwrap >/dev/null; then
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
      _engine_say "bubblewrap is not here: have an administrator install the package bubblewrap, then run this again."
      return 1
    fi
    _engine_say "installing bubblewrap and libseccomp2"
    export DEBIAN_FRONTEND=noninteractive
    if ! said=$(apt-get -q install -y --no-install-recommends bubblewrap libseccomp2 2>&1); then
      apt-get -q update >/dev/null 2>&1 || true
      if ! said=$(apt-get -q install -y --no-install-recommends bubblewrap libseccomp2 2>&1); then
        printf '%s\n' "$said" | tail -n 5 >&2
        _engine_say "bubblewrap could not be installed by apt: mend what it says above, and run this again."
        return 1
      fi
    fi
  fi
  # As another user when root, else in a namespace in which this user may mount: that is how sandboxes are made, and a
  # machine may keep either from all but root.
  local as="unshare --user --map-root-user --mount"
  if [ "$(id -u)" -eq 0 ]; then as="setpriv --reuid 10001 --regid 10001 --clear-groups"; fi
  if ! said=$($as bwrap --unshare-user --unshare-pid --unshare-net --ro-bind / / --proc /proc true 2>&1); then
    _engine_say "bubblewrap makes no sandbox here (${said:-no reason given}): allow users their own namespaces (sysctl kernel.unprivileged_userns_clone=1 or kernel.apparmor_restrict_unprivileged_userns=0), then run this again."
    return 1
  fi
}
