#!/bin/sh
# Makes a Debian package of what `make stage` put into a folder.
#
#   deb.sh STAGE VERSION OUT.deb
set -eu
stage=$1
version=$2
out=$3
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -a "$stage/." "$work"
mkdir -p "$work/DEBIAN" "$work/etc/default" "$work/usr/share/doc/bacnode"
cp "$here/default" "$work/etc/default/bacnode"
cp "$here/../../LICENSE" "$work/usr/share/doc/bacnode/copyright"
cat >"$work/DEBIAN/control" <<CONTROL
Package: bacnode
Version: $version
Architecture: $(dpkg --print-architecture)
Maintainer: the bacnode authors <bacnode@localhost>
Section: net
Priority: optional
Depends: libc6 (>= 2.36), libgcc-s1, libstdc++6, adduser
Recommends: ca-certificates
Suggests: docker.io
Description: peer of a compute network
 Makes this machine a peer that runs jobs in WebAssembly or Docker beside the
 data, takes jobs from its user, and has other peers bid for them.
CONTROL
echo /etc/default/bacnode >"$work/DEBIAN/conffiles"
cat >"$work/DEBIAN/postinst" <<'POSTINST'
#!/bin/sh
set -e
if [ "$1" = configure ]; then
    getent passwd bacnode >/dev/null || adduser --quiet --system --group --home /var/lib/bacnode --no-create-home bacnode
    # Whoever installs Docker as well wants containers to be run.
    getent group docker >/dev/null && adduser --quiet bacnode docker
    if [ -d /run/systemd/system ]; then
        systemctl daemon-reload
        # After an upgrade the new program runs; jobs go on where they were.
        [ -z "$2" ] || systemctl try-restart bacnode
    fi
fi
exit 0
POSTINST
cat >"$work/DEBIAN/prerm" <<'PRERM'
#!/bin/sh
set -e
[ "$1" = remove ] && [ -d /run/systemd/system ] && systemctl disable --now bacnode || true
PRERM
chmod 755 "$work/DEBIAN/postinst" "$work/DEBIAN/prerm"
mkdir -p "$(dirname "$out")"
dpkg-deb --root-owner-group --build "$work" "$out" >/dev/null
echo "$out"
