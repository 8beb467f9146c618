#!/bin/bash
# What is in the Debian packages, without booting anything (no root): built for both processors, and
# once more elsewhere, under other habits, which must give the same bytes. A minute.
#   deploy/test-packages.sh [ARGUMENTS OF PYTEST]
set -euo pipefail
cd "$(dirname "$0")/.."
work=$PWD/build/packages
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
.venv/bin/pip install -q --disable-pip-version-check 'cyclonedx-python-lib[json-validation]==11.12.0'

# build FOLDER ARCH: in a copy of what is tracked, as a clean clone would have it
build() {
  rm -rf "$1"
  mkdir -p "$1"
  git ls-files -z | xargs -0 cp --parents -t "$1"
  ln -s "$PWD/.venv" "$1/.venv"
  ARCH=$2 bash "$1/deploy/debian/build.sh"
}
rm -rf "$work"
build "$work/arm64" arm64
build "$work/amd64" amd64
(
  umask 077
  export TZ=Asia/Seoul LC_ALL=C HOME=$work/home
  build "$work/again/and/elsewhere" amd64
)
EDGE_AGENT_PACKAGES=$work .venv/bin/pytest -p no:cacheprovider -q tests/packages "$@"
