#!/bin/bash
# Test the unit under a real systemd: a Debian tree, booted in a container, with this checkout in it.
# The tree is made once and kept outside the checkout; it is never written to after that.
#   deploy/test-systemd.sh [TESTS]   make the tree if missing, then run the tests (tests/systemd)
#   deploy/test-systemd.sh --tree    only make the tree
set -eu
cd "$(dirname "$0")/.."
export EDGE_AGENT_TEST_TREE="${EDGE_AGENT_TEST_TREE:-${XDG_CACHE_HOME:-/var/cache}/edge-agent-test/tree}"
tree=$EDGE_AGENT_TEST_TREE

if [ "$(id -u)" -ne 0 ]; then
  echo "A container with its own systemd needs root: run  sudo make test-systemd" >&2
  exit 77
fi
bash deploy/setup-apt.sh systemd-container debootstrap python3-venv

# The mirror this machine already uses, whatever it is.
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
mirror=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
  awk -v release="$release" '$1 == release { print $2; exit }')
[ "$release" = bookworm ] && export EDGE_AGENT_TEST_MIRROR="$mirror"

if [ ! -e "$tree.ready" ]; then
  [ -n "$mirror" ] || { echo "No package source for $release in /etc/apt" >&2; exit 69; }
  rm -rf "$tree"
  mkdir -p "$(dirname "$tree")"
  echo "Making a Debian $release tree in $tree (once, about two minutes)" >&2
  log="$tree.log"
  if ! timeout 1200 debootstrap --variant=minbase \
    --include=systemd,systemd-sysv,dbus,python3,procps "$release" "$tree" "$mirror" >"$log" 2>&1; then
    tail -20 "$log" >&2
    exit 69
  fi
  rm -rf "$tree"/var/cache/apt/archives/*.deb "$tree"/var/lib/apt/lists/* "$tree"/usr/share/doc
  : >"$tree.ready"
fi
[ "${1:-}" = --tree ] && exit 0
[ $# -gt 0 ] || set -- -m "not slow" tests/systemd
exec .venv/bin/pytest "$@"
