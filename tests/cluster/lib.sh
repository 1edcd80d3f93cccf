# Shared by the scripts of this folder (sourced, never run): where things are, and how to talk, start and stop.
# shellcheck shell=bash disable=SC2034

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
repo=$(cd "$here/../.." && pwd -P)
target=$repo/target
# Everything the cluster owns is below this folder. A process is ours when its command line names it.
cluster=$target/cluster
bin=$target/bin
cache=${XDG_CACHE_HOME:-$HOME/.cache}/portico

bridge=${PORTICO_BRIDGE:-portico0}
subnet=${PORTICO_SUBNET:-10.88}            # the first two bytes of a /16
services=${PORTICO_SERVICES:-10.96}        # likewise
api_port=${PORTICO_API_PORT:-6443}
etcd_port=${PORTICO_ETCD_PORT:-2379}
metrics_port=${PORTICO_METRICS_PORT:-10251}
node=${PORTICO_NODE:-node1}
node_ip=$subnet.0.1
kubeconfig=$cluster/kubeconfig
socket=$cluster/run/containerd.sock
# kube-proxy and kubelet own iptables chains and ports of the whole network namespace, so there is one cluster in it.
owner_file=/run/portico-cluster.owner

kubernetes_version=v1.34.4
helm_version=v3.18.6

# In the order they start; they stop in the reverse order.
daemons=(containerd etcd kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet host-path-provisioner network-policies metrics-server)

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

need_root() { [ "$(id -u)" = 0 ] || die "$(basename "$0") needs root: it makes network devices, mounts and containers"; }

need_commands() {
  local missing=() c
  for c in "$@"; do command -v "$c" >/dev/null || missing+=("$c"); done
  [ ${#missing[@]} = 0 ] || die "not installed: ${missing[*]} ('make packages' installs what Debian or Ubuntu has)"
}

elapsed() { echo "$((SECONDS - ${1:-0})) s"; }

ctr() { command ctr -a "$socket" -n k8s.io "$@"; }
kubectl() { "$bin/kubectl" --kubeconfig "$kubeconfig" "$@"; }

# Repeats a command until it succeeds: await SECONDS COMMAND...
await() {
  local until=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $until ] || return 1
    sleep 0.2
  done
}

# True when the process is alive and its command line names our folder: a recorded pid may be somebody else's by now.
is_ours() {
  local pid=$1
  [ -n "$pid" ] && [ -r "/proc/$pid/cmdline" ] && tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF -- "$cluster/"
}

pid_of() { cat "$cluster/run/$1.pid" 2>/dev/null || true; }
is_running() { is_ours "$(pid_of "$1")"; }

# start NAME COMMAND...: nothing when it runs already.
start() {
  local name=$1; shift
  if is_running "$name"; then return; fi
  [ ! -e "$cluster/run/$name.pid" ] || say "  $name had died: starting it again (its last words: target/cluster/log/$name.log)"
  (
    cd "$cluster" || exit 1
    exec setsid "$@" >>"$cluster/log/$name.log" 2>&1 </dev/null 9>&-
  ) &
  echo $! >"$cluster/run/$name.pid"
}

# stop NAME SECONDS: asks, then insists.
stop() {
  local pid; pid=$(pid_of "$1")
  if is_ours "$pid"; then
    kill "$pid" 2>/dev/null || true
    await "$2" gone "$pid" || { kill -KILL "$pid" 2>/dev/null || true; await 5 gone "$pid" || say "  $1 (process $pid) does not die"; }
  fi
  rm -f "$cluster/run/$1.pid"
}
gone() { ! is_ours "$1"; }

# The folder whose cluster is up in this network namespace, if any of its processes is alive.
current_owner() {
  local owner pid
  owner=$(cat "$owner_file" 2>/dev/null) || return 0
  for pid in "$owner"/run/*.pid; do
    pid=$(cat "$pid" 2>/dev/null) || continue
    if [ -r "/proc/$pid/cmdline" ] && tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF -- "$owner/"; then
      echo "$owner"
      return
    fi
  done
}

# Serializes the scripts of one clone. The descriptor is closed for everything that stays.
lock() {
  mkdir -p "$target"
  exec 9>"$target/.cluster.lock"
  flock -n 9 || { say "waiting for another up, down or build of this clone ..."; flock 9; }
}
