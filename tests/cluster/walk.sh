# Shared by the walk-throughs (sourced, never run): every command is shown before it runs, and the first that does not do
# what it should ends the demo.
# shellcheck shell=bash disable=SC2034

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' off=$'\e[0m'; else bold='' dim='' off=''; fi

unset -f kubectl # below, kubectl is the binary, with the KUBECONFIG that is shown
export PATH=$bin:$PATH KUBECONFIG=$kubeconfig

step=0
title() { step=$((step + 1)); printf '\n%s%d. %s%s\n' "$bold" "$step" "$*" "$off"; }
why() { printf '%s   %s%s\n' "$dim" "$*" "$off"; }
shown() { printf '   $ %s\n' "$1"; }
indented() { sed 's/^/     /'; }

# run COMMAND: shows it, runs it, shows the answer.
run() {
  shown "$1"
  bash -o pipefail -c "$1" </dev/null 2>&1 | indented || broken "$1"
}

# expect TEXT COMMAND: as run, and the answer must contain TEXT.
expect() {
  local answer
  shown "$2"
  answer=$(bash -c "$2" </dev/null 2>&1) || { printf '%s\n' "$answer" | indented; broken "$2"; }
  printf '%s\n' "$answer" | indented
  [[ $answer == *"$1"* ]] || broken "$2" "the answer should contain: $1"
}

# refused TEXT COMMAND: must fail, for the reason TEXT (an extended regular expression).
refused() {
  local answer
  shown "$2"
  if answer=$(bash -o pipefail -c "$2" </dev/null 2>&1); then
    printf '%s\n' "$answer" | indented
    broken "$2" "this must be refused, and was not"
  fi
  printf '%s\n' "$answer" | indented
  grep -qiE -- "$1" <<<"$answer" || broken "$2" "it failed, but not because of: $1"
  why "refused, as it must be"
}

# once 'KIND NAME' COMMAND: only when the object is not there from an earlier run.
once() {
  if bash -c "kubectl get $1" >/dev/null 2>&1; then shown "$2   # there from an earlier run"; else run "$2"; fi
}

fetch() { if command -v curl >/dev/null; then echo "curl -fsS $1"; else echo "$cluster/bin/wget -qO- $1"; fi; }

broken() {
  say ""
  say "The demo ends here. This went wrong: $1"
  [ $# -lt 2 ] || say "  $2"
  say "  host:    export KUBECONFIG=$kubeconfig; kubectl get pods -A"
  say "  Portico: kubectl -n portico-system logs -l portico.dev/component=portico --tail=50"
  exit 1
}
