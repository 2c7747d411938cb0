#!/bin/sh
# Becomes systemd, PID 1 of the namespaces that machine.py has made for it, over an overlay of a file tree to which nothing
# is written: boot.sh LOWER WORKSHOP [BIND]...  In WORKSHOP are the empty directories root and ram, and files, which are
# copied into the new root. Each BIND is a directory that shows at its own path, read-only.
set -eu
[ $$ = 1 ] || { echo "boot.sh: not for calling by hand" >&2; exit 1; }
lower=$1 root=$2/root ram=$2/ram files=$2/files
shift 2

# Whatever is written goes to memory, and is gone with these namespaces.
mount -t tmpfs -o mode=755 tmpfs "$ram"
mkdir "$ram/upper" "$ram/work"
mount -t overlay -o "lowerdir=$lower,upperdir=$ram/upper,workdir=$ram/work" overlay "$root"
systemd=/usr/lib/systemd/systemd
[ -x "$root$systemd" ] || systemd=/lib/systemd/systemd

# The kernel's knobs are the machine's: read-only, but for those of our own network.
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
for place in sys bus fs irq acpi sysrq-trigger; do
    if [ -e "$root/proc/$place" ]; then
        mount --bind "$root/proc/$place" "$root/proc/$place"
        mount -o remount,bind,ro,nosuid,nodev,noexec "$root/proc/$place"
    fi
done
for place in kmsg kcore; do
    if [ -e "$root/proc/$place" ]; then mount --bind /dev/null "$root/proc/$place"; fi
done
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup"

# Device nodes of our own: what happens to the machine's /dev/fuse does not matter, nor to it what happens here.
mount -t tmpfs -o mode=755,nosuid,size=4m tmpfs "$root/dev"
node() { mknod -m "$2" "$root/dev/$1" "$3" "$4" "$5"; }
node null 666 c 1 3; node zero 666 c 1 5; node full 666 c 1 7; node random 666 c 1 8; node urandom 666 c 1 9
node tty 666 c 5 0; node fuse 666 c 10 229; node autofs 600 c 10 235
mkdir "$root/dev/pts" "$root/dev/shm" "$root/dev/mqueue"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5,nosuid,noexec devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/dev/shm"
mount -t mqueue -o nosuid,nodev,noexec mqueue "$root/dev/mqueue"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
# A node of its own: whoever resets a console gives it another mode and owner, and the machine's /dev/null is everybody's.
node console 600 c 1 3

mount -t tmpfs -o mode=755,nosuid,nodev tmpfs "$root/run"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/tmp"
for directory; do
    mkdir -p "$root$directory"
    mount --bind "$directory" "$root$directory"
    mount -o remount,bind,ro "$root$directory"
done

# Of what the tree has enabled nothing is started but a bus and a journal.
rm -rf "$root/etc/systemd/system" "$root/etc/fstab"
for wants in "$root"/usr/lib/systemd/system/*.target.wants "$root"/lib/systemd/system/*.target.wants; do
    for unit in "$wants"/*; do
        case ${unit##*/} in dbus.* | systemd-journald.* | systemd-journald-dev-log.socket) ;; *) rm -f "$unit" ;; esac
    done
done
mkdir -p "$root/etc/systemd/system" "$root/etc/systemd/journald.conf.d" "$root/etc/systemd/system.conf.d"
cat >"$root/etc/systemd/system/default.target" <<'END'
[Unit]
Description=A machine to test on
Requires=basic.target
Wants=dbus.service
After=basic.target dbus.service rescue.service
Conflicts=rescue.service
AllowIsolate=yes
END
printf '[Journal]\nStorage=volatile\nAudit=no\nReadKMsg=no\nRateLimitIntervalSec=0\nForwardToSyslog=no\n' \
    >"$root/etc/systemd/journald.conf.d/test.conf"
printf '[Manager]\nDumpCore=no\nCrashShell=no\nShowStatus=no\nStatusUnitFormat=name\n' \
    >"$root/etc/systemd/system.conf.d/test.conf"
tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
sed -i -E '/^(passwd|group):/{/systemd/!s/$/ systemd/}' "$root/etc/nsswitch.conf"  # the names of dynamic users
hostname testbed
cp -a "$files/." "$root/"

cd "$root"
mkdir run/.old
pivot_root . run/.old
umount -l /run/.old
rmdir /run/.old
mount --make-rshared /  # as on a machine; in containers systemd leaves it as it is
# Nothing here may reach for the machine's kernel; there remains what managing this one takes.
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 container=testbed \
    setpriv --bounding-set=-audit_control,-audit_read,-sys_module,-sys_rawio,-sys_time,-syslog,-wake_alarm,-block_suspend,-bpf,-perfmon \
    "$systemd" --system --log-target=journal --show-status=0
