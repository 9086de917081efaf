#!/bin/sh
# image.sh SUITE OUT [PACKAGE...]: a bare Debian tree that systemd-nspawn can boot, and in its /srv/apt an offline
# repository with the PACKAGEs and what they need. Root only. The mirror is this machine's own default.
# Bare is the point: what a role needs beyond this it must bring, as it must on a minimal host of a user.
set -eu
suite=$1 out=$2
shift 2
export OFFLINE="$*"
packages="systemd systemd-sysv dbus python3 python3-apt openssh-server sudo iputils-ping iproute2 procps netbase nftables
    ca-certificates openssl"
# Timers that would do work of their own in the middle of a test, and a clock that belongs to the machine.
masked="apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer dpkg-db-backup.timer systemd-timesyncd.service"
export MASKED="$masked"

# shellcheck disable=SC2016,SC2086 # hooks expand their own $1; the list is joined with commas
mmdebstrap --quiet --variant=minbase --format=directory --include="$(echo $packages | tr ' ' ,)" \
    --aptopt='Acquire::Languages "none"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook='chroot "$1" useradd -m -s /bin/bash deploy' \
    --customize-hook='echo "deploy ALL=(ALL) NOPASSWD: ALL" >"$1/etc/sudoers.d/deploy"; chmod 440 "$1/etc/sudoers.d/deploy"' \
    --customize-hook='for unit in $MASKED; do ln -sf /dev/null "$1/etc/systemd/system/$unit"; done' \
    --customize-hook='echo "UseDNS no" >"$1/etc/ssh/sshd_config.d/10-bed.conf"; mkdir -p "$1/var/log/journal" "$1/srv/apt"' \
    --customize-hook='[ -z "$OFFLINE" ] || APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get -qq -y --no-install-recommends --download-only install $OFFLINE >/dev/null' \
    --customize-hook='[ -z "$OFFLINE" ] || mv "$1"/var/cache/apt/archives/*.deb "$1/srv/apt/"' \
    --customize-hook='cd "$1/srv/apt" && apt-ftparchive packages . >Packages && apt-ftparchive release . >Release' \
    --customize-hook='rm -f "$1"/etc/apt/sources.list.d/*; echo "deb [trusted=yes] file:/srv/apt ./" >"$1/etc/apt/sources.list"' \
    --customize-hook='rm -f "$1/etc/resolv.conf" "$1/etc/hostname" "$1"/etc/ssh/ssh_host_*; : >"$1/etc/machine-id"' \
    "$suite" "$out"
# A fresh folder of package lists counts as up to date for the apt module's cache_valid_time, and nothing is in it.
mkdir -p "$out/var/lib/apt/lists" "$out/var/lib/apt/periodic"
touch -d @0 "$out/var/lib/apt/lists" "$out/var/lib/apt/periodic"
