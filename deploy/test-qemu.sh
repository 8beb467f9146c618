#!/bin/bash
# The package in a machine of its own, emulated (needs root): the unit's limits of memory and tasks,
# kills for want of memory, a power cut. A container cannot show these: it has no memory controller.
set -euo pipefail
cd "$(dirname "$0")/.."
tree="${EDGE_AGENT_TEST_TREE:-${XDG_CACHE_HOME:-/var/cache}/edge-agent-test/tree}"
bash deploy/test-systemd.sh --tree
bash deploy/setup-apt.sh qemu-system-x86 cpio e2fsprogs

work=$(mktemp -d -p "${TMPDIR:-/tmp}" edge-agent-qemu.XXXXXX)
guest=
end() { [ -z "$guest" ] || kill -9 "$guest" 2>/dev/null || true; rm -rf "$work"; }
trap end EXIT

# ---- the kernel, kept beside the tree: Debian's for machines in clouds, and the modules of a disk
kernel=$tree.kernel
if [ ! -e "$kernel/vmlinuz" ]; then
  package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
  (cd "$work" && apt-get -qq download "$package" 2>/dev/null && dpkg -x linux-image-*.deb kernel)
  mkdir -p "$kernel"
  find "$work/kernel/lib/modules" -name 'virtio*.ko' -exec cp {} "$kernel/" \;
  cp "$work"/kernel/boot/vmlinuz-* "$kernel/vmlinuz"
fi

# ---- the tree with the package in it, as the first file system of the machine
root=$work/root
cp -a "$tree" "$root"
cp "$(ls -t dist/edge-agent_*_amd64.deb | head -1)" "$root/package.deb"
chroot "$root" systemd-sysusers
chroot "$root" env DEBIAN_FRONTEND=noninteractive dpkg -i /package.deb >"$work/install.log" 2>&1 ||
  { tail -20 "$work/install.log" >&2; exit 1; }
rm -rf "$root/package.deb" "$root"/opt/edge-agent/*/wheels
.venv/bin/python - "$root/etc/edge-agent" <<'PY'
import sys
from pathlib import Path
from simulators import models
folder = Path(sys.argv[1])
for name, model in {"mean": models.tiny(), "hungry": models.out_of_memory()}.items():
    (folder / f"{name}.onnx").write_bytes(model)
    (folder / f"{name}.onnx").chmod(0o644)
PY
cat >"$root/etc/edge-agent/edge-agent.yaml" <<'YAML'
version: 1
gateway: {id: gateway-1}
journal: {commit: 1s}
devices:
  pump1:
    type: modbus
    connect: "tcp://127.0.0.1:5020"
    unit: 1
    addressing: zero_based
    poll: 200ms
    tags: {flow: {reg: 0, as: uint16}}
models:
  mean:
    file: /etc/edge-agent/mean.onnx
    window: {kind: count, rows: 5}
    instances: {pump1: {inputs: [pump1/flow]}}
  hungry:
    file: /etc/edge-agent/hungry.onnx
    window: {kind: count, rows: 5}
    instances: {pump2: {inputs: [pump1/flow]}}
YAML
install -D -m 644 -t "$root/opt/qemu" tests/qemu/*.py "$kernel"/*.ko
unit() { cat >"$root/etc/systemd/system/$1.service"; ln -sf "../$1.service" "$root/etc/systemd/system/multi-user.target.wants/$1.service"; }
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
unit disk <<'UNIT'
[Unit]
Before=edge-agent.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/python3 /opt/qemu/disk.py
StandardError=journal+console
UNIT
unit plant <<'UNIT'
[Service]
ExecStart=/usr/bin/python3 /opt/qemu/plant.py
UNIT
unit judge <<'UNIT'
[Unit]
After=disk.service
[Service]
ExecStart=/usr/bin/python3 /opt/qemu/judge.py
UNIT
ln -sf /lib/systemd/system/edge-agent.service "$root/etc/systemd/system/multi-user.target.wants/edge-agent.service"
for name in serial-getty@ttyS0.service getty.target e2scrub_reap.service; do
  ln -sf /dev/null "$root/etc/systemd/system/$name"
done
echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
ln -sf /usr/lib/systemd/systemd "$root/init"
(cd "$root" && find . -xdev -print0 | cpio -0 -o -H newc --quiet | gzip -1) >"$work/root.cpio.gz"
rm -rf "$root"
truncate -s 512M "$work/state.img"
mkfs.ext4 -q "$work/state.img"

# Run the machine until the judge says $1, at most $2 s; it is never shut down, only cut off.
life() {
  qemu-system-x86_64 -accel tcg,thread=multi -cpu max -m 3072 -smp 2 -nographic -no-reboot -nic none \
    -kernel "$kernel/vmlinuz" -initrd "$work/root.cpio.gz" \
    -drive "file=$work/state.img,format=raw,if=virtio" \
    -append "console=ttyS0 rdinit=/init panic=-1 quiet" </dev/null >"$work/console.log" 2>&1 &
  guest=$!
  for ((i = 0; i < $2; i++)); do
    grep -aqE "^JUDGE ($1|FAILED)" "$work/console.log" && break
    kill -0 "$guest" 2>/dev/null || break
    sleep 1
  done
  kill -9 "$guest" 2>/dev/null || true
  wait "$guest" 2>/dev/null || true
  guest=
  grep -a "^JUDGE" "$work/console.log" || true
  grep -aq "^JUDGE $1" "$work/console.log" || { tail -40 "$work/console.log" >&2; exit 1; }
}
life CUT 420
life DONE 300
