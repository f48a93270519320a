#!/bin/sh
# What busybox's init runs first on an emulated board.

mkdir -p /dev/pts /dev/shm
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs -o mode=0755 dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o mode=0620,ptmxmode=0666 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmp /tmp
mount -t tmpfs -o mode=0755 run /run
hostname -F /etc/hostname
modprobe -a virtio_pci virtio_blk virtio_net virtio_rng
ifconfig lo 127.0.0.1 up
# QEMU's user networking has fixed addresses: no need to ask for them.
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
route add default gw 10.0.2.2
