#!/bin/bash
# The agent without our package: built from what is tracked and nothing else, installed by pip and by
# pipx into places outside the checkout, and run from there (tests/wheel). Half a minute.
#   deploy/test-pip.sh [ARGUMENTS OF PYTEST]
set -euo pipefail
cd "$(dirname "$0")/.."
bash deploy/setup-apt.sh python3-venv pipx
work=$PWD/build/pip
python=${PYTHON:-/usr/bin/python3}
rm -rf "$work"
mkdir -p "$work/source" "$work/dist"

# What a clean clone holds: a file that nobody added must be missing here, too.
git ls-files -z | xargs -0 cp --parents -t "$work/source"
.venv/bin/python -m build -o "$work/dist" "$work/source" >"$work/build.log" 2>&1 || { cat "$work/build.log" >&2; exit 1; }
wheel=$(echo "$work"/dist/edge_agentd-*.whl)

# The versions the tests know, so that a release of somebody else fails no test of ours.
export PIP_CONSTRAINT=$PWD/requirements-dev.txt PIP_DISABLE_PIP_VERSION_CHECK=1
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install -q "$wheel[web,fast,export,sunspec]"
PIPX_HOME=$work/pipx PIPX_BIN_DIR=$work/bin pipx install --python "$python" "$wheel[web]" >"$work/pipx.log" 2>&1 ||
  { cat "$work/pipx.log" >&2; exit 1; }
unset PIP_CONSTRAINT
EDGE_AGENT_WHEEL=$work .venv/bin/pytest -p no:cacheprovider -q tests/wheel "$@"
