# shellcheck shell=sh
# Copyright: the coasters.pool contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# First process of an isolated test host, until it becomes its sshd: sh init.sh NAME FOLDER ADDRESS/PREFIX SSHD SHARED
# Runs in new net, mount, pid, uts and ipc namespaces with private mounts; standard error is the host's log.
# Prints its process id as the client sees it, then waits for a line, which means that eth0 is there.

set -e
name=$1 folder=$2 address=$3 sshd=$4 shared=$5
read -r pid _ < /proc/self/stat
echo "$name" > /proc/sys/kernel/hostname
echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6 || :

cd "$folder"
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" root
[ ! -d home ] || mount --bind home root/home
[ -z "$shared" ] || mount -o bind,ro "$shared" root/mnt
cd root
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --bind /dev dev
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=0755 tmpfs run
mkdir -m 0755 run/sshd run/lock
pivot_root . .
umount -l .
cd /

echo "$pid"
read -r _
ip -batch - << END
link set lo up
address add $address dev eth0
link set eth0 up
END
exec "$sshd" -D -e -f /etc/ssh/sshd_config < /dev/null > /dev/null
