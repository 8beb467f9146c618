#!/bin/bash
# Python on the emulated processor, with the wheels of the package and without the agent of the checkout;
# for `make test-aarch64`, which made the tree in EDGE_AGENT_AARCH64. It stays one process, in a mount
# namespace of its own, so that nothing stays mounted; /tmp and the network are those of this machine.
#   deploy/aarch64-python.sh [ARGUMENTS OF PYTHON]
set -eu
cd "$(dirname "$0")/.."
exec unshare -m bash -euc '
  tree=$1; shift
  mount -t proc proc "$tree/proc"
  mount --bind "$tree/cpuinfo" "$tree/proc/cpuinfo"
  mount -t sysfs sysfs "$tree/sys"
  for part in dev tmp; do mount --bind "/$part" "$tree/$part"; done
  mount --bind build/aarch64 "$tree/opt/agent"
  mount -t tmpfs tmpfs "$tree/src"
  for part in tests simulators benchmarks configs docs deploy; do
    mkdir "$tree/src/$part"
    mount --bind "$part" "$tree/src/$part"
  done
  cp pyproject.toml "$tree/src"
  libraries=/opt/agent/prefix/lib/python3.11/site-packages
  exec env -i ${NOTIFY_SOCKET:+NOTIFY_SOCKET="$NOTIFY_SOCKET"} PATH=/usr/bin:/bin HOME=/tmp LANG=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$libraries:/opt/agent/tools" \
    /usr/sbin/chroot "$tree" /opt/busybox sh -c "cd /src && exec /opt/python \"\$@\"" - "$@"
' - "$EDGE_AGENT_AARCH64" "$@"
