#!/bin/sh
# A stand-in host's findmnt, lsblk, growpart, resize2fs and xfs_growfs: its disk is three numbers in
# the host's folder, bytes of the disk, of its partition and of the file system.
host=${0%/*/*}
name=${0##*/}
disk=$host/dev/disk part=$host/dev/part fs=$host/dev/fs

fail() {
    echo "$name: $*" >&2
    exit 1
}

if grep -qx "$name" "$host/etc/refuses" 2>/dev/null; then
    echo "$name: command not found" >&2
    exit 127
fi
[ -f "$disk" ] || fail "this stand-in host has no disk of its own"
case "$name $*" in
    'findmnt -nvro SOURCE,FSTYPE /') echo '/dev/nvme0n1p1 ext4' ;;
    'lsblk -bnrso NAME,TYPE,SIZE /dev/nvme0n1p1')
        echo "nvme0n1p1 part $(cat "$part")"
        echo "nvme0n1 disk $(cat "$disk")"
        ;;
    'lsblk -bnro TYPE,SIZE /dev/nvme0n1')
        echo "disk $(cat "$disk")"
        echo "part $(cat "$part")"
        ;;
    'growpart /dev/nvme0n1 1')
        [ -n "${SUDO_USER-}" ] || fail "must be root"
        cp "$disk" "$part" && echo 'CHANGED: partition=1'
        ;;
    'resize2fs /dev/nvme0n1p1')
        [ -n "${SUDO_USER-}" ] || fail "Permission denied to resize filesystem"
        cp "$part" "$fs"
        ;;
    *) fail "a stand-in host does not know '$*'" ;;
esac
