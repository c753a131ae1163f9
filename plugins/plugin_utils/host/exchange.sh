# shellcheck shell=sh
# Copyright: the coasters.pool contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The one exchange with a worker host: install, check, launch and report. Run as: sh -c SCRIPT coasters VERB POOL
# Standard input: settings as lines NAME=VALUE up to an empty line, then the supervisor (supervisor_size bytes), then the
# worker's program, and at last the line "end". Answers are lines "coasters:NAME=VALUE" on standard output; the last one is "coasters:end=VERB".

verb=$1
pool=$2
users_umask=$(umask)
users_locale=${LC_ALL:-}
umask 077
LC_ALL=C
export LC_ALL

newline='
'
carriage_return=$(printf '\r')
# No process is started where none is needed: on many hosts of one machine, and on small ones, they are what an exchange costs.
say() {
  case $2 in
    *"$newline"* | *"$carriage_return"*) printf 'coasters:%s=%s\n' "$1" "$(printf '%s' "$2" | tr '\n\r' '  ')" ;;
    *) printf 'coasters:%s=%s\n' "$1" "$2" ;;
  esac
}
fail() { # cause, sentence
  say cause "$1"
  say error "$2"
  say end "$verb"
  exit 0
}

[ -n "${HOME:-}" ] && [ -d "$HOME" ] || fail home "the user has no home directory on this host: make one"
cd "$HOME" || fail home "the user may not enter its home directory $HOME on this host: mend its owner" # who becomes another user is elsewhere
base=$HOME/.coasters
dir=$base/$pool
new=$base/.new:$pool:$$

# Settings of this run; each line is kept as it came for the supervisor to read.
kept=''
slots=''
block=''
urls=''
route=''
engine=''
interpreter=''
supervisor_size=0
program_size=0
version=''
restart=''
replace=''
started_by=''
keep_logs=''
dry=''
lines=0
call_back_limit=''
read_settings() {
  while IFS= read -r line && [ -n "$line" ]; do
    case $line in
      slots=*) slots=${line#*=} ;;
      block=*) block=${line#*=} ;;
      urls=*) urls=${line#*=} ;;
      route=*) route=${line#*=} ;;
      engine=*) engine=${line#*=} ;;
      interpreter=*) interpreter=${line#*=} ;;
      time_limit=* | version=*)
        kept="$kept$line$newline"
        case $line in version=*) version=${line#*=} ;; esac
        ;;
      supervisor_size=*) supervisor_size=${line#*=} ;;
      program_size=*) program_size=${line#*=} ;;
      started_by=*) started_by=${line#*=} ;;
      restart=*) restart=${line#*=} ;;
      replace=*) replace=${line#*=} ;;
      keep_logs=*) keep_logs=${line#*=} ;;
      dry=*) dry=${line#*=} ;;
      call_back_limit=*) call_back_limit=${line#*=} ;;
      lines=*) lines=${line#*=} ;;
    esac
  done
}

setting() { # name
  while IFS= read -r line; do
    case $line in "$1"=*) printf '%s\n' "${line#*=}" && return ;; esac
  done 2>/dev/null <"$dir/settings"
}

# A process of this pool: its command line names the pool's folder.
ours() { # pid
  [ -n "$1" ] || return 1
  if [ -d /proc/self ]; then
    grep -qF -- "$dir/" "/proc/$1/cmdline" 2>/dev/null
  else
    ps -o args= -p "$1" 2>/dev/null | grep -qF -- "$dir/"
  fi
}
# The id of the pool's process of that name, if it runs, in $pid.
find_process() { # supervisor or worker
  pid=''
  { read -r pid <"$dir/$1.pid"; } 2>/dev/null
  ours "$pid" || pid=''
}

# Cores that this user's processes may use: affinity, then the quotas of all control groups above us.
usable_cores() {
  cores=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
  group=''
  while IFS=: read -r hierarchy _ path; do
    [ "$hierarchy" != 0 ] || group=$path
  done 2>/dev/null </proc/self/cgroup
  while :; do
    if [ -r "/sys/fs/cgroup$group/cpu.max" ] && read -r quota period <"/sys/fs/cgroup$group/cpu.max" && [ "$quota" != max ]; then
      limited=$(((quota + period - 1) / period))
      [ "$limited" -ge "$cores" ] || cores=$limited
    fi
    [ -n "$group" ] && [ "$group" != / ] || break
    group=${group%/*}
  done
  quota=-1
  [ ! -r /sys/fs/cgroup/cpu/cpu.cfs_quota_us ] || read -r quota </sys/fs/cgroup/cpu/cpu.cfs_quota_us
  if [ "$quota" -gt 0 ]; then
    read -r period </sys/fs/cgroup/cpu/cpu.cfs_period_us
    limited=$(((quota + period - 1) / period))
    [ "$limited" -ge "$cores" ] || cores=$limited
  fi
  [ "$cores" -ge 1 ] || cores=1
  echo "$cores"
}

find_interpreter() {
  if [ "$engine" = swift ]; then
    for candidate in ${interpreter:-perl /usr/bin/perl /usr/local/bin/perl}; do
      "$candidate" -MSocket -MPOSIX -e 1 >/dev/null 2>&1 </dev/null && command -v "$candidate" && return
    done
    fail interpreter "there is no Perl on this host${interpreter:+ at $interpreter}: install it, or use the built-in engine"
  fi
  for candidate in ${interpreter:-python3 /usr/bin/python3 /usr/local/bin/python3 /usr/libexec/platform-python python3.13 python3.12 python3.11 python3.10 python3.9 python3.8 python3.7 python3.6 python}; do
    found=$("$candidate" -ISc 'import sys, zlib; sys.version_info >= (3, 6) and print(sys.executable)' 2>/dev/null </dev/null)
    [ -n "$found" ] && echo "$found" && return
  done
  fail interpreter "there is no Python 3.6 or later on this host${interpreter:+ at $interpreter}: install it or set swift_worker_interpreter"
}

# Whether the worker will be able to reach its service: prints why not.
call_back() {
  if [ "$engine" = swift ]; then
    # shellcheck disable=SC2016
    "$interpreter" -MIO::Socket::INET -e '
      my ($urls, $end, $why) = ($ARGV[1], time + $ARGV[0], "");
      do {
        for my $url (split /,/, $urls) {
          my ($to) = $url =~ m{//([^/]+)};
          exit 0 if IO::Socket::INET->new(PeerAddr => $to, Timeout => $ARGV[0]);
          $why = "$to: $@";
        }
        select undef, undef, undef, 0.1;
      } while ($why =~ /refused/ && time < $end);
      print $why' "$call_back_limit" "$urls" </dev/null
  else
    "$interpreter" -ISc '
import socket, sys, time
limit = float(sys.argv[1])
end = time.time() + limit
why = ""
while not why or ("refused" in why and time.time() < end):
    for url in sys.argv[2].split(","):
        host, _, port = url.split("//", 1)[1].rstrip("/").rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), limit).close()
            sys.exit(0)
        except OSError as error:
            why = "%s:%s: %s" % (host, port, error.strerror or error)
    time.sleep(0.1)
print(why)' "$call_back_limit" "$urls" </dev/null
  fi
}

# The client's address as this host sees it, in $client. sudo hides it from root, who may look at what sudo was started with.
client() {
  seen=${SSH_CONNECTION:-}
  process=$$
  while [ -z "$seen" ] && [ "${process:-0}" -gt 1 ]; do
    seen=$(tr '\0' '\n' 2>/dev/null <"/proc/$process/environ" | sed -n 's/^SSH_CONNECTION=//p')
    process=$(sed -n 's/^PPid:[^0-9]*//p' "/proc/$process/status" 2>/dev/null)
  done
  client=${seen%% *}
}

# What runs now, for those who want to see what changes.
say_before() {
  [ -z "$running" ] || say before "$(setting engine) $(setting slots) $(setting urls)"
}

report() {
  { read -r hostname </proc/sys/kernel/hostname; } 2>/dev/null || hostname=$(uname -n)
  say hostname "$hostname"
  client
  say client "$client"
  say slots "$slots"
  say running "$running"
}

# Take the new files from standard input; prints nothing. Leaves them in $new.
receive() {
  trap 'clean_up' EXIT
  trap 'exit 1' HUP INT TERM PIPE
  { { [ ! -d "$base" ] || chmod 700 "$base"; } && mkdir -p "$new/logs"; } 2>/dev/null || fail disk "the folder $base cannot be made: free space or mend its owner"
  { read -r unique </proc/sys/kernel/random/uuid; } 2>/dev/null || unique=$$-$(date +%s)
  {
    head -c "$supervisor_size" >"$new/supervisor" && head -c "$program_size" >"$new/worker" &&
      printf '%s\n' "$block" >"$new/block" &&
      printf '%surls=%s\nslots=%s\nengine=%s\ninterpreter=%s\nroute=%s\nstarted_by=%s\nmark=%s\n' \
        "$kept" "$urls" "$slots" "$engine" "$interpreter" "$route" "$started_by" "$pool-$unique" >"$new/settings"
  } 2>/dev/null || fail disk "writing to $base failed ($(df -k "$HOME" 2>/dev/null | awk 'END {print $4}') KiB free): free space there"
  read -r line && [ "$line" = end ] || fail transfer "the worker's program arrived cut off: run the same command again"
}

clean_up() {
  [ ! -e "$new" ] || rm -rf "$new"
  [ -d "$dir" ] || rmdir "$base" 2>/dev/null
}

same_block() { { read -r known <"$dir/block"; } 2>/dev/null && [ "$known" = "$block" ]; }

# What of a running worker differs from what is wanted, as words.
differences() {
  [ "$(setting slots)" = "$slots" ] || printf 'slots '
  [ "$(setting version)" = "$version" ] || printf 'version '
  [ "$(setting engine)" = "$engine" ] || printf 'engine '
  [ "$(setting started_by)" = "$started_by" ] || printf 'supervisor '
}

# The supervisor as a unit of systemd, which starts it again after a boot: root's of the system, another user's of that user.
unit=coasters-$pool.service
find_units() {
  if [ "$(id -u)" = 0 ]; then
    units=/etc/systemd/system
    target=multi-user.target
    control() { systemctl "$@"; }
  else
    units=$HOME/.config/systemd/user
    target=default.target
    control() { XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-/run/user/$(id -u)} systemctl --user "$@"; }
  fi
}

check_systemd() {
  find_units
  if [ "$target" = default.target ] && [ ! -e "/var/lib/systemd/linger/$(id -un)" ]; then
    loginctl enable-linger >/dev/null 2>&1 ||
      fail systemd "systemd would end the worker with the last login: let root run 'loginctl enable-linger $(id -un)' on this host"
  fi
  case $(control is-system-running 2>/dev/null) in
    running | degraded | starting | initializing | maintenance) ;;
    *) fail systemd "systemd does not answer on this host: set swift_worker_supervisor to detached, or mend it" ;;
  esac
}

enlist() {
  escaped_home=$(printf '%s' "$HOME" | sed 's/%/%%/g')
  escaped=$escaped_home${dir#"$HOME"}
  mkdir -p "$units" && cat >"$units/$unit" <<END
[Unit]
Description=Coaster worker of the pool $pool
StartLimitIntervalSec=0

[Service]
Environment="HOME=$escaped_home"
ExecStart=/bin/sh "$escaped/supervisor" "$escaped"
StandardOutput=append:$escaped/logs/supervisor.log
StandardError=inherit
KillMode=mixed
TimeoutStopSec=10
Restart=always
RestartSec=10

[Install]
WantedBy=$target
END
  control daemon-reload && control enable --quiet --now "$unit"
}

withdraw() {
  find_units
  control disable --quiet --now "$unit"
  rm -f "$units/$unit"
  control daemon-reload
}

launch() {
  if [ -d "$dir" ]; then
    mkdir -p "$dir/logs" && mv -f "$new/supervisor" "$new/worker" "$new/block" "$new/settings" "$dir/"
  else
    mv "$new" "$dir"
  fi || fail disk "writing to $dir failed: free space or mend its owner"
  if [ "$started_by" = systemd ]; then
    enlist >>"$dir/logs/supervisor.log" 2>&1
  else
    detach
  fi
  tries=0
  until { read -r running <"$dir/supervisor.pid" && kill -0 "$running"; } 2>/dev/null; do
    tries=$((tries + 1))
    [ "$tries" -le 100 ] || fail launch "the supervisor did not start: $(tail -n 1 "$dir/logs/supervisor.log" 2>/dev/null)"
    sleep 0.02
  done
}

detach() {
  (
    umask "$users_umask"
    LC_ALL=$users_locale
    [ -n "$LC_ALL" ] || unset LC_ALL
    trap - HUP INT TERM PIPE EXIT
    apart="nohup"
    command -v setsid >/dev/null 2>&1 && apart="setsid"
    exec "$apart" sh "$dir/supervisor" "$dir"
  ) </dev/null >>"$dir/logs/supervisor.log" 2>&1 &
}

# End every process that carries the mark of this pool's worker in its environment, jobs that it left behind; prints their ids.
sweep() {
  mark=$(setting mark)
  [ -n "$mark" ] || return 0
  grep -lzFx "COASTERS_MARK=$mark" /proc/[0-9]*/environ 2>/dev/null | while IFS=/ read -r _ _ left _; do
    kill -KILL "$left" 2>/dev/null && echo "$left"
  done
}

# Give what was killed a second to vanish: it holds its files and ports until then.
await_end() { # pids
  tries=0
  for killed in "$@"; do
    while [ "$tries" -lt 20 ] && kill -0 "$killed" 2>/dev/null && ! grep -q '^State:.Z' "/proc/$killed/status" 2>/dev/null; do
      tries=$((tries + 1))
      sleep 0.05
    done
  done
}

halt() {
  [ "$(setting started_by)" != systemd ] || withdraw >/dev/null 2>&1
  if [ -n "$running" ]; then
    kill -TERM "$running"
    tries=0
    while ours "$running" && [ "$tries" -lt 100 ]; do
      tries=$((tries + 1))
      sleep 0.05
    done
    ours "$running" && kill -KILL "$running"
  fi
  find_process worker
  [ -z "$pid" ] || kill -KILL "$pid"
  # shellcheck disable=SC2046
  await_end ${pid:+"$pid"} $(sweep)
  rm -f "$dir/supervisor.pid" "$dir/worker.pid"
}

find_process supervisor
running=$pid
case $verb in
  start | check)
    read_settings
    [ -n "$slots" ] || slots=$(usable_cores)
    if [ -n "$running" ] && [ -z "$interpreter" ] && [ "$(setting engine)" = "$engine" ]; then
      interpreter=$(setting interpreter)
    else
      interpreter=$(find_interpreter)
      case $interpreter in coasters:*) printf '%s\n' "$interpreter" && exit 0 ;; esac
    fi
    [ -n "$urls" ] || urls=@
    case $urls in
      *@*) # the client's address is what this host sees
        client
        case ${client:=127.0.0.1} in *:*) client="[$client]" ;; esac
        urls=$(printf '%s' "$urls" | sed "s/@/$client/g")
        ;;
    esac
    [ "$started_by" != systemd ] || check_systemd
    receive
    if [ -n "$block" ] && [ "$replace" != yes ] && [ -n "$running" ] && ! same_block; then
      say other "$(cat "$dir/block")" # who asks may know whose it is
      say end "$verb"
      exit 0
    fi
    say_before
    changed=no
    pending=
    if [ -n "$running" ] && [ "$(setting urls)" = "$urls" ] && { [ -z "$block" ] || same_block; }; then
      pending=$(differences)
      [ -n "$pending" ] && [ "$restart" = yes ] && changed=yes
    else
      changed=yes
    fi
    if [ "$changed" = yes ] && [ "$verb" = start ]; then
      if [ -n "$call_back_limit" ]; then
        why=$(call_back 2>&1)
        [ -z "$why" ] || fail callback "it cannot reach the coaster service ($why)"
      fi
      [ ! -d "$dir" ] || halt
      launch
      pending=
    fi
    [ "$changed" = yes ] || slots=$(setting slots)
    say changed "$changed"
    say pending "$pending"
    say interpreter "$interpreter"
    say urls "$urls"
    report
    ;;
  stop)
    read_settings
    say_before
    changed=no
    [ "$dry" = yes ] || rm -rf "$base/.new:$pool:"*
    if [ "$keep_logs" = yes ]; then
      there=$(find "$dir" -mindepth 1 -maxdepth 1 ! -name logs 2>/dev/null)
    else
      there=$(find "$dir" -maxdepth 0 2>/dev/null)
    fi
    [ -z "$there" ] || changed=yes
    if [ "$changed" = yes ] && [ "$dry" != yes ]; then
      halt
      if [ "$keep_logs" = yes ]; then
        find "$dir" -mindepth 1 -maxdepth 1 ! -name logs -exec rm -rf {} +
      else
        rm -rf "$dir"
      fi
      [ "$keep_logs" = yes ] || [ ! -e "$dir" ] || fail disk "$dir cannot be removed: remove it by hand"
    fi
    rmdir "$base" 2>/dev/null
    say changed "$changed"
    ;;
  status)
    read_settings
    slots=$(setting slots)
    report
    find_process worker
    say worker "$pid"
    say_before
    [ "$lines" -eq 0 ] || [ -d "$dir/logs" ] || fail log "this pool has no logs on this host"
    cat "$dir/logs/supervisor.log" "$dir"/logs/worker*.log 2>/dev/null | tail -n "$lines" | sed 's/^/coasters>/'
    ;;
esac
say end "$verb"
