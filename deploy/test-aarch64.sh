#!/bin/bash
# The agent on 64-bit ARM, emulated: a session of ONNX and the suite's core, from the wheels of the
# package alone. The tree is made once (a minute) and kept outside the checkout.
#   deploy/test-aarch64.sh [TESTS]
set -euo pipefail
cd "$(dirname "$0")/.."
tree="${XDG_CACHE_HOME:-/var/cache}/edge-agent-test/arm64"
qemu=/usr/bin/qemu-aarch64-static
# What depends on bytes, numbers, clocks and files. All of tests/unit takes a quarter of an hour here.
core=(modbus_words modbus_encode modbus_plan block wire core sealed clock derive drift onnx_scan ring
  sparkplug_encode units)
tests=("$@")
[ $# -gt 0 ] || tests=("${core[@]/#/tests/unit/test_}")
[ $# -gt 0 ] || tests=("${tests[@]/%/.py}")
if [ "$(id -u)" -ne 0 ]; then
  echo "A tree of another processor needs root: run  sudo make test-aarch64" >&2
  exit 77
fi
bash deploy/setup-apt.sh qemu-user-static debootstrap

if [ ! -e "$tree.ready" ]; then
  mirror=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
    awk '$1 == "bookworm" { print $2; exit }')
  [ -n "$mirror" ] || { echo "No package source for bookworm in /etc/apt" >&2; exit 69; }
  rm -rf "$tree"
  mkdir -p "$(dirname "$tree")"
  echo "Making a Debian tree for arm64 in $tree (once, about a minute)" >&2
  if ! timeout 900 debootstrap --foreign --arch=arm64 --variant=minbase \
    --include=python3,libstdc++6,libgcc-s1 bookworm "$tree" "$mirror" >"$tree.log" 2>&1; then
    tail -20 "$tree.log" >&2
    exit 69
  fi
  # Unpacked, not configured: the second stage would take twenty minutes and is not needed to run Python.
  for package in "$tree"/var/cache/apt/archives/*.deb; do dpkg -x "$package" "$tree"; done
  rm -rf "$tree"/var/cache/apt/archives "$tree"/var/lib/apt/lists
  cp "$qemu" "$tree$qemu"
  # Of a Cortex-A72; with that of this machine onnxruntime ends by a segmentation fault.
  for n in 0 1; do
    printf 'processor\t: %s\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\n' "$n"
    printf 'CPU architecture: 8\nCPU part\t: 0xd08\n\n'
  done >"$tree/cpuinfo"
  : >"$tree.ready"
fi

# ---- what the package carries, and what the tests need beside it
work=build/aarch64
rm -rf "$work"
mkdir -p "$work"
[ -n "$(ls dist/edge-agent_*_arm64.deb 2>/dev/null)" ] || ARCH=arm64 bash deploy/debian/build.sh
dpkg-deb -x "$(ls -t dist/edge-agent_*_arm64.deb | head -1)" "$work/package"
pip=(.venv/bin/pip --disable-pip-version-check -qq install --implementation cp --python-version 3.11 --only-binary :all:)
for glibc in 2_28 2_27 2_26 2_24 2_17; do pip+=(--platform "manylinux_${glibc}_aarch64"); done
pip+=(--platform manylinux2014_aarch64 --platform any)
home=$(echo "$work"/package/opt/edge-agent/*/)
"${pip[@]}" --target "$work/site" --no-index -f "$home/wheels" --no-deps -r "$home/requirements.txt"
"${pip[@]}" --target "$work/tools" -c requirements-dev.txt pytest pytest-asyncio hypothesis jsonschema onnx protobuf
rm -rf "$work/package"

# ---- in a mount namespace of its own, so that nothing stays mounted
mkdir -p "$tree/src" "$tree/opt/agent"
emulated() {
  unshare -m bash -euc '
    tree=$1 checkout=$2 qemu=$3; shift 3
    mount -t proc proc "$tree/proc"
    mount --bind "$tree/cpuinfo" "$tree/proc/cpuinfo"
    mount -t sysfs sysfs "$tree/sys"
    mount --bind /dev "$tree/dev"
    mount -t tmpfs tmpfs "$tree/tmp"
    mount --bind "$checkout" "$tree/src"
    mount --bind "$checkout/build/aarch64" "$tree/opt/agent"
    exec chroot "$tree" "$qemu" -cpu cortex-a53 /usr/bin/env -i --chdir=/src PATH=/usr/bin:/bin HOME=/tmp \
      ORT_DISABLE_TELEMETRY=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="/src:/opt/agent/site:/opt/agent/tools" \
      "$qemu" -cpu cortex-a53 /usr/bin/python3.11 "$@"
  ' - "$tree" "$PWD" "$qemu" "$@"
}
emulated tests/aarch64/session.py
emulated -m pytest -p no:cacheprovider -q "${tests[@]}"
