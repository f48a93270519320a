# What the target does to attach and to detach USB devices, and to say which are. One run a call:
#   attach REMOTE DOOR BUSID SECONDS KNOWN SWEEP   REMOTE:DOOR is an exporter, KNOWN the ports in
#                                       use; SWEEP is not empty: what else REMOTE has here goes
#   detach SECONDS PORT/BUSID...        by the target's wish
#   settle SECONDS PORT/BUSID...        their exporter has taken them away: wait for it
#   forget SECONDS REMOTE DOOR BUSID    it was never ready, and its exporter has withdrawn it
#   list
# Answers are lines of words on stdout: phase NAME UPTIME, then NAME VALUE.
# What fails says so (failed WHY), and ends with another exit code than 0.
#
# Any POSIX shell will do, of root. Where there is udev, it has its turn.
#
# Without it nobody but the kernel tells of a device. Where it lets somebody wait, we wait (a
# device's configuration can only be read when all of its drivers have had their turn); for the
# rest we look every 5 ms, which is as soon as a process that is woken by a uevent could be here.

export vhci=/sys/devices/platform/vhci_hcd.0
export records=/var/run/vhci_hcd # usbip's own
devices=/sys/bus/usb/devices

# Not everybody's login has it, and usbip is there.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

phase() {
	read -r up _ </proc/uptime
	echo "phase $1 $up"
}

begin() {
	read -r up _ </proc/uptime
	deadline=$((${up%.*} + $1))
	ticks=0
}

# Waits a moment; ends everything when it is too late.
tick() {
	usleep 5000 2>/dev/null || sleep 0.01 2>/dev/null || sleep 1
	ticks=$((ticks + 1))
	[ $((ticks % 50)) = 0 ] || return 0
	read -r up _ </proc/uptime
	[ "${up%.*}" -lt "$deadline" ] || fail late
	[ -n "$mark" ] || return 0
	row "$port" && [ "$state" != 004 ] || fail ended
	! since | grep -q "usb usb[0-9]*-port$place: unable to enumerate" || fail refused
}

# The kernel's words since we began.
since() { dmesg | sed -n "/$mark/,\$p"; }

fail() {
	echo "failed $1"
	dmesg | tail -n 12 | sed 's/^/kernel /'
	exit 1
}

# row PORT: $state, $bus and the port's $place on its hub, as vhci has them. There are some ports
# to a controller, and a file to each.
row() {
	for file in $vhci/status*; do
		[ -e "$file" ] || continue
		hs=0 ss=0
		while read -r hub number state speed _ _ bus; do
			case $hub in
			hs) hs=$((hs + 1)) place=$hs ;;
			ss) ss=$((ss + 1)) place=$ss ;;
			*) continue ;;
			esac
			[ "${number#"${number%%[!0]*}"}" != "${1#0}" ] || return 0
		done <"$file"
	done
	return 1
}

# usbip's work in a shell's words, where there is none: its standard input and output are the
# connection, and the kernel takes that. OP_REQ_IMPORT and its answer are as in the kernel's
# Documentation/usb/usbip_protocol.rst; the record is as usbip writes it.
plain='
remote=$1 door=$2 busid=$3 pad= n=${#3}
while [ "$n" -lt 32 ]; do pad="$pad\\000" n=$((n + 1)); done
printf "\\001\\021\\200\\003\\000\\000\\000\\000%s$pad" "$busid"
take() { dd bs=1 count=$1 2>/dev/null | od -An -v -tu1; }
set -- $(take 8)
[ "$8" = 0 ] && set -- $(take 312)
[ $# = 312 ] || { echo "the exporter does not give $busid away" >&2; exit 1; }
shift 288
devid=$((($3 << 8 | $4) << 16 | $7 << 8 | $8)) speed=${12}
hub=hs
[ "$speed" -lt 5 ] || hub=ss
for file in $vhci/status*; do
	while read -r kind port state _; do
		[ "$kind $state" != "$hub 004" ] || break 2
		port=
	done <"$file"
done
[ "$port" ] || { echo "all ports of vhci_hcd are in use" >&2; exit 1; }
echo "$port 0 $devid $speed" >$vhci/attach || exit
port=${port#"${port%%[!0]*}"}
echo "$remote $door $busid" >$records/port${port:-0}
'

import() {
	if command -v usbip >/dev/null; then
		usbip --tcp-port "$door" attach -r "$remote" -b "$busid" || fail usbip
	elif command -v bash >/dev/null; then
		LC_ALL=C bash -c "exec <>\"/dev/tcp/\$1/\$2\" >&0 || exit; $plain" import \
			"$remote" "$door" "$busid" || fail import
	elif nc --help 2>&1 | grep -q -e '-e PROG'; then
		nc "$remote" "$door" -e /bin/sh -c "$plain" import "$remote" "$door" "$busid" || fail import
	else
		fail tool
	fi
}

# The port on which usbip has just put what we asked for; it says so in its records only.
find_port() {
	for record in $records/port*; do
		port=${record##*port}
		case " $known " in *" $port "*) continue ;; esac
		read -r host door_ busid_ <"$record" 2>/dev/null || continue
		[ "$host $door_ $busid_" = "$remote $door $busid" ] || continue
		row "$port" && [ "$state" != 004 ] && return 0
	done
	return 1
}

nodes() {
	(cd -P "$devices/$1" && find . -name uevent -exec grep -h ^DEVNAME= {} +) |
		sed 's,^DEVNAME=,node /dev/,'
}

driver_of() { [ ! -e "$1/driver" ] || (cd -P "$1/driver" && echo "${PWD##*/}"); }

# Drivers that are modules are loaded by udev, and nodes get their names from it.
settle_udev() {
	command -v udevadm >/dev/null || return 0
	read -r up _ </proc/uptime
	udevadm settle --timeout="$((deadline - ${up%.*}))"
}

# Disks are looked for in the background, and read for partitions: the kernel says when it has.
wait_for_disks() {
	until set -- "$1" "$1"/host*/target*/*:*/type && [ -e "$2" ]; do tick; done
	shift
	for type; do
		read -r kind <"$type"
		[ "$kind" = 0 ] || continue
		lun=${type%/type}
		until since | grep -q "sd ${lun##*/}: .*Attached SCSI"; do tick; done
	done
}

# What a run that is over has left here: its records, and devices whose connection nobody ended.
sweep() {
	for record in $records/port*; do
		read -r host _ busid_ 2>/dev/null <"$record" && [ "$host" = "$remote" ] || continue
		port=${record##*port}
		! row "$port" || [ "$state" = 004 ] || echo "$port" >$vhci/detach
		settle "$port/$busid_"
	done
}

attach() {
	remote=$1 door=$2 busid=$3 known=$5 mark=
	begin "$4"
	[ -e $vhci/status ] || modprobe vhci-hcd 2>/dev/null
	[ -e $vhci/status ] || fail vhci
	[ -w $vhci/attach ] || fail root
	mkdir -p $records
	[ -z "$6" ] || sweep
	# The kernel gives a stick a second to settle, which one that is no hardware does not need.
	echo 0 2>/dev/null >/sys/module/usb_storage/parameters/delay_use
	read -r unique </proc/sys/kernel/random/uuid
	echo "pytest-hil: attaching $busid ($unique)" >/dev/kmsg
	phase usbip
	import
	phase hub
	find_port || fail port
	echo "port $port"
	mark=$unique
	until [ "$state" = 006 ] && [ "$bus" != 0-0 ]; do tick && row "$port"; done
	echo "guest $bus"
	phase configure
	value=
	until read -r value <"$devices/$bus/bConfigurationValue" && [ -n "$value" ]; do
		tick
	done 2>/dev/null
	read -r vendor <"$devices/$bus/idVendor"
	read -r product <"$devices/$bus/idProduct"
	echo "ids $vendor $product"
	phase drivers
	settle_udev
	for interface in "$devices/$bus/$bus":*; do
		[ -e "$interface" ] || continue
		driver=$(driver_of "$interface")
		echo "interface ${interface##*:} ${driver:--}"
		case $driver in usb-storage | uas) wait_for_disks "$interface" ;; esac
	done
	phase nodes
	nodes "$bus"
	phase ready
}

# Whether a port is no more with the device BUSID: free, or used for another.
left() {
	row "$1" && [ "$state" != 004 ] || return 0
	read -r _ _ other 2>/dev/null <"$records/port$1" || return 1
	[ "$other" != "$2" ]
}

# Until these are gone; usbip forgets them.
settle() {
	for each; do
		until left "${each%%/*}" "${each#*/}"; do tick; done
		[ "$state" != 004 ] || rm -f "$records/port${each%%/*}"
	done
}

detach() {
	gone=
	for each; do
		left "${each%%/*}" "${each#*/}" && continue
		[ "$state" != 006 ] || gone="$gone $bus/$(cat $devices/$bus/devnum)"
		echo "${each%%/*}" >$vhci/detach || fail detach
	done
	settle "$@"
	for each in $gone; do
		while read -r number 2>/dev/null <"$devices/${each%%/*}/devnum" &&
			[ "$number" = "${each#*/}" ]; do
			tick
		done
	done
}

forget() {
	for record in $records/port*; do
		read -r host door busid 2>/dev/null <"$record" || continue
		[ "$host $door $busid" != "$1 $2 $3" ] || settle "${record##*port}/$busid"
	done
}

list() {
	for file in $vhci/status*; do
		# The module may not be there since the last boot.
		[ -e "$file" ] || continue
		while read -r hub port state speed _ _ bus; do
			case $hub$state in hs006 | ss006) ;; *) continue ;; esac
			port=${port#"${port%%[!0]*}"}
			record="- - -"
			[ ! -e "$records/port${port:=0}" ] || read -r record <"$records/port$port"
			read -r vendor 2>/dev/null <"$devices/$bus/idVendor" || continue
			read -r product 2>/dev/null <"$devices/$bus/idProduct" || continue
			echo "attached $port $bus $vendor $product $record"
			nodes "$bus"
		done <"$file"
	done
}

action=$1
shift
mark=
case $action in
attach | list) $action "$@" ;;
detach | settle | forget)
	begin "$1"
	shift
	$action "$@"
	;;
esac
