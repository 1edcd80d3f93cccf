# Shared by the benches that count memory (sourced, never run): Portico's processes on this machine, where the local cluster
# runs them.
# shellcheck shell=bash

# Pids of all `portico serve` in containers; tests start their own.
serving() {
  local stat words
  for stat in /proc/[0-9]*; do
    mapfile -d '' -t words <"$stat/cmdline" 2>/dev/null || continue
    [[ ${words[0]:-} == /portico && ${words[1]:-} == serve ]] || continue
    echo "${stat#/proc/}"
  done
}

# kB of one field of smaps_rollup, summed over them.
memory() {
  local total=0 pid kb
  for pid in $(serving); do
    kb=$(awk -v field="$1:" '$1 == field {print $2}' "/proc/$pid/smaps_rollup" 2>/dev/null) || continue
    total=$((total + ${kb:-0}))
  done
  echo "$total"
}
