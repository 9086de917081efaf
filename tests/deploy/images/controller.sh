#!/bin/sh
# controller.sh TREE WHEELS LAYER: LAYER becomes what has to lie over TREE (a Debian with a newer Python) so that it has
# the packages of WHEELS/requirements.txt in /opt/ansible-newest. Root only, in a mount namespace of its own; no network.
set -eu
tree=$1 wheels=$2 layer=$3
place=$(mktemp -d)
mount -t tmpfs layer "$place" # an overlay cannot write to every file system, to this one it can
mkdir "$place/root" "$place/upper" "$place/work"
mount -t overlay -o "lowerdir=$tree,upperdir=$place/upper,workdir=$place/work" layer "$place/root"
mount --bind "$wheels" "$place/root/mnt"
mount --bind /dev "$place/root/dev"
chroot "$place/root" python3 -m venv --without-pip /opt/ansible-newest
pip=$(cd "$wheels" && echo pip-*.whl)
chroot "$place/root" /opt/ansible-newest/bin/python "/mnt/$pip/pip" install --quiet --disable-pip-version-check --no-cache-dir \
    --no-index --find-links /mnt --require-hashes --only-binary :all: -r /mnt/requirements.txt
umount "$place/root/dev" "$place/root/mnt" "$place/root"
cp -a "$place/upper/." "$layer"
umount "$place"
rmdir "$place"
