#!/bin/bash
# The agent on 64-bit ARM, emulated: a session of ONNX, an agent that collects, scores and publishes,
# and the suite's core, from the wheels of the package alone: the agent of the checkout is not in sight.
# The tree is made once (a minute) and kept outside the checkout.
#   deploy/test-aarch64.sh [TESTS]
set -euo pipefail
cd "$(dirname "$0")/.."
tree="${XDG_CACHE_HOME:-/var/cache}/edge-agent-test/arm64"
qemu=/usr/bin/qemu-aarch64-static
# What depends on bytes, numbers, clocks and files. Properties are tried with ten examples each, as one
# costs six times what it costs elsewhere; all of tests/unit would take half an hour.
core=(unit/test_{modbus_words,modbus_encode,modbus_plan,modbus_times,block,wire,core,sealed,clock,derive,drift}.py
  unit/test_{onnx_scan,ring,sparkplug_encode,units,scores,past,ondisk}.py
  contract/test_{journal,state,outbox}.py)
tests=("$@")
[ $# -gt 0 ] || tests=("${core[@]/#/tests/}")
if [ "$(id -u)" -ne 0 ]; then
  echo "A tree of another processor needs root: run  sudo make test-aarch64" >&2
  exit 77
fi
bash deploy/setup-apt.sh qemu-user-static busybox-static debootstrap mosquitto

if [ ! -e "$tree.ready" ] || [ ! -e "$tree/usr/share/zoneinfo/Europe/Berlin" ]; then
  mirror=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
    awk '$1 == "bookworm" { print $2; exit }')
  [ -n "$mirror" ] || { echo "No package source for bookworm in /etc/apt" >&2; exit 69; }
  rm -rf "$tree"
  mkdir -p "$(dirname "$tree")"
  echo "Making a Debian tree for arm64 in $tree (once, about a minute)" >&2
  if ! timeout 900 debootstrap --foreign --arch=arm64 --variant=minbase \
    --include=python3,libstdc++6,libgcc-s1,tzdata bookworm "$tree" "$mirror" >"$tree.log" 2>&1; then
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
site=$work/prefix/lib/python3.11/site-packages
"${pip[@]}" --target "$site" --no-index -f "$home/wheels" --no-deps -r "$home/requirements.txt"
mv "$site/share" "$work/prefix/share"
"${pip[@]}" --target "$work/tools" -c requirements-dev.txt pytest pytest-asyncio hypothesis jsonschema onnx protobuf
rm -rf "$work/package"

# Children are started by a script of a shell of this processor, which stands for Python there.
mkdir -p "$tree/opt/agent" "$tree/src"
cp /bin/busybox "$tree/opt/busybox"
printf '#!/opt/busybox sh\nexec %s -cpu cortex-a53 -0 "$0" /usr/bin/python3.11 "$@"\n' "$qemu" >"$tree/opt/python"
chmod 755 "$tree/opt/python"
for name in echo sleep; do ln -sf /opt/busybox "$tree/bin/$name"; done
export EDGE_AGENT_AARCH64=$tree
python=(bash deploy/aarch64-python.sh)
"${python[@]}" tests/aarch64/session.py
.venv/bin/pytest -p no:cacheprovider -q tests/aarch64
# How two ways of decoding compare in time is no question for an emulator.
"${python[@]}" -m pytest -p no:cacheprovider --hypothesis-profile=emulated -q \
  --deselect tests/unit/test_modbus_words.py::test_decoding_costs_a_fortieth_of_going_tag_by_tag "${tests[@]}"
