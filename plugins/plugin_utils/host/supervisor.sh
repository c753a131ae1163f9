# shellcheck shell=sh
# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Keeps one worker of a pool running on this host. Run as: sh supervisor FOLDER
# A worker that dies is started again with growing pauses; one that leaves with status 0 was told to by its service,
# and the supervisor ends with it. It also ends when the service has been gone for the time limit, or could not be found in half
# of it, and on SIGTERM.

dir=$1
urls=''
slots=''
engine=''
interpreter=''
mark=''
limit=60
while IFS= read -r line; do
  case $line in
    urls=*) urls=${line#*=} ;;
    slots=*) slots=${line#*=} ;;
    engine=*) engine=${line#*=} ;;
    interpreter=*) interpreter=${line#*=} ;;
    mark=*) mark=${line#*=} ;;
    time_limit=*) limit=${line#*=} ;;
  esac
done <"$dir/settings"
patience=$((limit / 2))
worker=''
watcher=''
pause_pid=''

log() { printf '%s %s\n' "$(date '+%Y-%m-%d %H:%M:%S')" "$1"; }
# Seconds, in $now, that a clock which is set does not change where the system tells them.
look_at_clock() {
  { read -r now _ </proc/uptime; } 2>/dev/null || now=$(date +%s)
  now=${now%.*}
}

# Jobs that a dead worker left behind carry its mark in their environment.
sweep() {
  grep -lzFx "COASTERS_MARK=$mark" /proc/[0-9]*/environ 2>/dev/null | while IFS=/ read -r _ _ left _; do
    kill -KILL "$left" 2>/dev/null
  done
}

leave() {
  trap '' TERM INT HUP
  [ -n "$watcher" ] && kill "$watcher" 2>/dev/null
  [ -n "$pause_pid" ] && kill "$pause_pid" 2>/dev/null
  if [ -n "$worker" ] && kill -TERM "$worker" 2>/dev/null; then
    tries=0
    while kill -0 "$worker" 2>/dev/null && [ "$tries" -lt 60 ]; do
      tries=$((tries + 1))
      sleep 0.05
    done
    kill -KILL "$worker" 2>/dev/null
  fi
  sweep
  rm -f "$dir/supervisor.pid" "$dir/worker.pid"
  log "ended: $1"
  exit 0
}
trap 'leave "told to"' TERM INT HUP

# shellcheck disable=SC2317 # called by name
run_builtin() { COASTERS_MARK=$mark exec "$interpreter" -IS "$dir/worker" -c "$slots" -timelimit "$limit" "$urls" "@$dir/block" "$dir/logs"; }
# shellcheck disable=SC2317
run_swift() { COASTERS_MARK=$mark exec "$interpreter" "$dir/worker" -c "$slots" "$urls" "$(cat "$dir/block")" "$dir/logs"; }

# Whether a socket of the worker is connected, or about to be. Where the system does not tell, it is.
connected() {
  [ -r /proc/net/tcp ] || return 0
  # shellcheck disable=SC2012 # a process has no other list of its descriptors
  sockets=$(ls -l "/proc/$worker/fd" 2>/dev/null | sed -n 's/.*socket:\[\([0-9]*\)\]$/ \1 /p')
  cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep -F "${sockets:-none}" | grep -q ' 0[12] '
}

# worker.pl never connects again, and overlooks for up to two minutes that its service is gone: end it then.
watch() {
  trap 'kill "$pause_pid" 2>/dev/null; exit 0' TERM
  was_connected=''
  while :; do
    sleep 5 &
    pause_pid=$!
    wait "$pause_pid"
    kill -0 "$$" 2>/dev/null && kill -0 "$worker" 2>/dev/null || exit 0
    if connected; then
      was_connected=yes
    elif [ -n "$was_connected" ]; then
      log "the service is gone: ending its worker"
      kill -KILL "$worker"
      exit 0
    fi
  done
}

echo $$ >"$dir/supervisor.pid"
trouble_since=''
pause=0
while [ -d "$dir" ] || leave "its folder is gone"; do
  look_at_clock
  began=$now
  "run_$engine" </dev/null >>"$dir/logs/worker.log" 2>&1 &
  worker=$!
  echo "$worker" >"$dir/worker.pid"
  if [ "$engine" = swift ]; then
    watch &
    watcher=$!
  fi
  wait "$worker"
  status=$?
  [ -n "$watcher" ] && kill "$watcher" 2>/dev/null
  worker=''
  watcher=''
  sweep
  [ "$status" -ne 0 ] || leave "the service sent the worker home"
  look_at_clock
  # The built-in worker tries for the whole time limit by itself and then leaves with the last attempt's errno (Linux:
  # 22, 32, 99 to 113); worker.pl gives up after three seconds.
  case $engine-$status in
    builtin-22 | builtin-32 | builtin-99 | builtin-10? | builtin-11?) leave "no service within the time limit" ;;
  esac
  if [ $((now - began)) -ge 10 ]; then
    patience=$limit
    trouble_since=''
    pause=0
  fi
  : "${trouble_since:=$now}"
  [ $((now - trouble_since)) -lt "$patience" ] || leave "no service or no working worker for $patience s"
  log "the worker ended with status $status; starting it again in $pause s"
  sleep "$pause" &
  pause_pid=$!
  wait "$pause_pid"
  pause_pid=''
  pause=$((pause * 2 + 1))
  [ "$pause" -le 8 ] || pause=8
done
