#!/bin/bash
# Build dist/edge-agent_VERSION_ARCH.deb: the wheels of every Python it may meet, and scripts that
# make an environment of them on the gateway. Nothing is compiled here, so any machine builds for any.
#   ARCH=arm64     for another processor (amd64, arm64)
#   VERSION=1.2.3  instead of the version of the source
#   WHEEL=FILE     instead of a wheel made from this checkout
set -euo pipefail
cd "$(dirname "$0")/../.."
umask 022                                 # the same bytes, whoever builds, and where
export TZ=UTC LC_ALL=C.UTF-8
PYTHONS="3.11 3.13"                       # Debian 12 and 13
arch=${ARCH:-$(dpkg --print-architecture)}
version=${VERSION:-$(.venv/bin/python -c 'import agent; print(agent.__version__)')}
case $arch in
  amd64) machine=x86_64 ;;
  arm64) machine=aarch64 ;;
  *) echo "No wheels of onnxruntime for $arch: amd64 or arm64" >&2; exit 64 ;;
esac
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
root=build/deb/$arch/root
home=$root/opt/edge-agent/$version
wheels=$home/wheels
rm -rf "build/deb/$arch"
mkdir -p "$wheels" dist

# ---- the wheels: versions as in requirements-dev.txt, from the index that pip is set up for
pip=(.venv/bin/pip --disable-pip-version-check -qq)
if [ -n "${WHEEL:-}" ]; then cp "$WHEEL" "$wheels/"; else
  source=$PWD/build/deb/$arch/source      # without leftovers, and with modes that are no one's habit
  mkdir "$source"
  cp -r --parents agent configs docs deploy/systemd pyproject.toml README.md LICENSE NOTICE "$source"
  chmod -R u=rwX,go=rX "$source"
  build=$PWD/deploy/debian/build.txt
  PIP_CONSTRAINT=$build PIP_BUILD_CONSTRAINT=$build "${pip[@]}" wheel --no-deps -w "$wheels" "$source"
fi
agent=$(echo "$wheels"/edge_agentd-*.whl)
platforms=(--platform any)
for glibc in 28 27 26 24 17 12; do platforms+=(--platform "manylinux_2_${glibc}_$machine"); done
platforms+=(--platform "manylinux2014_$machine" --platform "manylinux2010_$machine")
for python in $PYTHONS; do
  "${pip[@]}" download --only-binary :all: --implementation cp --python-version "$python" \
    "${platforms[@]}" -c requirements-dev.txt -c deploy/debian/pip.txt -d "$wheels" \
    "$agent[web,fast]" -r deploy/debian/pip.txt
done
.venv/bin/python deploy/debian/pins.py "$wheels" "$version" \
  --requirements "$home/requirements.txt" --sbom "$root/usr/share/doc/edge-agent/sbom.cdx.json"

# ---- everything else
put() { install -D -m "$1" "$2" "$root/$3"; }
put 755 deploy/debian/trial.sh usr/lib/edge-agent/trial
put 644 deploy/debian/trial.conf usr/lib/systemd/system/edge-agent.service.d/trial.conf
put 644 deploy/systemd/edge-agent.service usr/lib/systemd/system/edge-agent.service
put 644 deploy/systemd/edge-agent.sysusers usr/lib/sysusers.d/edge-agent.conf
put 640 deploy/debian/edge-agent.yaml etc/edge-agent/edge-agent.yaml
put 644 LICENSE usr/share/doc/edge-agent/copyright
put 644 NOTICE usr/share/doc/edge-agent/NOTICE
for page in CHANGELOG.md docs/*.md docs/fetch_bundle.py; do put 644 "$page" "usr/share/doc/edge-agent/$(basename "$page")"; done
put 644 docs/edge-agent.1 usr/share/man/man1/edge-agent.1
gzip -9n "$root/usr/share/man/man1/edge-agent.1"
for example in configs/minimal.yaml configs/full.yaml; do put 644 "$example" "usr/share/doc/edge-agent/examples/$(basename "$example")"; done
mkdir -p "$root/usr/bin"
ln -s /opt/edge-agent/current/venv/bin/edge-agent "$root/usr/bin/edge-agent"

mkdir "$root/DEBIAN"
for script in postinst prerm postrm; do
  sed "s/@VERSION@/$version/" "deploy/debian/$script" >"$root/DEBIAN/$script"
  chmod 755 "$root/DEBIAN/$script"
done
install -m 644 deploy/debian/templates deploy/debian/triggers "$root/DEBIAN/"
echo /etc/edge-agent/edge-agent.yaml >"$root/DEBIAN/conffiles"
size=$(du -sk --exclude=DEBIAN "$root" | cut -f1)
sed -e "s/@VERSION@/$version/" -e "s/@ARCH@/$arch/" -e "s/@SIZE@/$size/" deploy/debian/control >"$root/DEBIAN/control"
(cd "$root" && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
chmod -R u=rwX,go=rX "$root/usr" "$root/opt" "$root/DEBIAN"
find "$root" -newermt "@$SOURCE_DATE_EPOCH" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

# Wheels are compressed already.
dpkg-deb --root-owner-group -Znone -b "$root" "dist/edge-agent_${version}_$arch.deb" >/dev/null
rm -rf "build/deb/$arch"
ls -l "dist/edge-agent_${version}_$arch.deb"
