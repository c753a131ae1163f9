#!/bin/sh
# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# A first pool: starts one on this machine with the built-in engine, runs a job on it, shows its output, and stops it.
# The same three steps serve a pool of many hosts: replace localhost by user@host1 user@host2 ...
set -eu

work=$(mktemp -d)
pool=
finish() {
    [ -z "$pool" ] || kill -TERM "$pool" 2> /dev/null || true
    wait
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM HUP

# 1. The pool lives as long as start-pool runs; its URL is the one line on standard output.
start-pool --name hello --port 0 --worker-port 0 localhost > "$work/started" &
pool=$!
until grep -q '^Started coaster service: ' "$work/started"; do
    kill -0 "$pool" 2> /dev/null || { echo "The pool did not start; the lines above say why." >&2; exit 1; }
    sleep 0.2
done
cat "$work/started"
url=$(sed -n 's/^Started coaster service: //p' "$work/started")

# 2. A job: any command. Its output comes back because of -redirected.
# shellcheck disable=SC2016
cog-job-submit -provider coaster-persistent -service-contact "$url" -redirected \
    /bin/sh -c 'echo "Hello from a job on $(uname -n), process $$, at $(date)"'

# 3. The end of start-pool is the end of the pool (finish, above).
