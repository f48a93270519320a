#!/bin/busybox ash
# The guest's first process. It makes the machine ready, says so on the console by one fixed
# line, and then keeps the agent and a shell on the console alive for ever.

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root TERM=vt102 LC_ALL=C.UTF-8

mount -t devtmpfs -o mode=0755 dev /dev
mkdir -p /dev/pts /dev/shm
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs -o mode=0755 run /run
mount -t tmpfs -o mode=1777 tmp /tmp
mount -t devpts -o mode=0620,ptmxmode=0666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
[ -d /sys/kernel/debug ] && mount -t debugfs debug /sys/kernel/debug
mkdir -p /run/vhci_hcd /run/lock # usbip writes its connections there
hostname -F /etc/hostname

say() { echo "pytest-hil: $*" >/dev/console; }

read -r modules </etc/hil/modules
[ -z "$modules" ] || modprobe -a $modules || say "some modules did not load"

ifconfig lo 127.0.0.1 up
if [ -e /sys/class/net/eth0 ]; then
	# QEMU's user networking has fixed addresses: no need to ask for them.
	ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
	route add default gw 10.0.2.2
fi

# Runs a service for ever. One that ends at once must not spin.
keep() {
	while :; do
		"$@"
		sleep 1
	done
}

failed=
step() {
	[ -z "$failed" ] || return
	/bin/sh -c "$1" </dev/null
	code=$?
	[ $code = 0 ] && return
	failed=1
	say "startup failed: exit code $code: $1"
}
. /etc/hil/startup

if [ -z "$failed" ]; then
	keep /sbin/hil-agent </dev/null >/dev/console 2>&1 &
	say ready
fi
keep setsid cttyhack ash -l &

# The signals of busybox's poweroff, reboot and halt.
trap 'sync; poweroff -f' USR2
trap 'sync; reboot -f' TERM
trap 'sync; halt -f' USR1
while :; do
	wait
done
