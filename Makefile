# The commands of this project. Each works a second time; none needs a file outside the clone.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
APT := mosquitto mosquitto-clients python3-venv openssl strace faketime libmodbus-dev mbpoll gcc libc6-dev docker-registry nginx-light curl prometheus groff-base patch e2fsprogs

.PHONY: setup check test fault demo bench soak bench-book sparkplug-book test-systemd deb test-deb test-upgrade test-qemu test-aarch64 test-pip test-packages lock crash test-mlflow test-browser

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml requirements-dev.txt
	@bash deploy/setup-apt.sh $(APT)
	test -x $(BIN)/python || python3 -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/pip install -q --disable-pip-version-check --no-deps -e .
	@test -d build/peers || ! command -v npm >/dev/null || timeout 180 npm install --silent --no-audit --no-fund --omit=optional --prefix build/peers jsmodbus@5 modbus-serial@8 || echo "without the peers in JavaScript"
	touch $@

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/edge-agent check configs/*.yaml
	$(BIN)/python -m tests.sparkplug --check

test: setup
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow and not bench"

# Everything at once in one terminal. `make demo HEADLESS=1` asserts what arrived, and ends; `FOR=60`: only the first story.
demo: setup
	$(BIN)/edge-agent demo $(if $(HEADLESS),--headless) $(if $(FOR),--for $(FOR))

# Each fault many times, at random instants. The seed is printed; EDGE_AGENT_SEED=n repeats a run.
fault: setup
	$(BIN)/pytest -m "slow" tests/fault
	EDGE_AGENT_MUTANTS=10000 $(BIN)/pytest tests/config/test_fuzz.py

# Power cuts as root: every promise kept, every broken build caught. Goes on where it was broken off.
crash: setup
	$(BIN)/python -m tests.crash $(if $(CUTS),--cuts $(CUTS)) $(if $(PART),--part $(PART))

bench: setup
	$(BIN)/python -m benchmarks $(NAME)

# A day of cycles of ten devices in a quarter of an hour: does anything grow?
soak: setup
	$(BIN)/python -m benchmarks cycles_86400

# Every figure, into the tables of the page; its prose is by hand.
bench-book: setup
	$(BIN)/python -m benchmarks --book docs/benchmarks.md

# The registry of type `mlflow` against a real server, in a virtual environment of its own (850 MB).
test-mlflow: setup
	test -x .venv-mlflow/bin/mlflow || { python3 -m venv .venv-mlflow && .venv-mlflow/bin/pip install -q --disable-pip-version-check mlflow==3.17.2; }
	EDGE_AGENT_MLFLOW=$(CURDIR)/.venv-mlflow/bin/mlflow $(BIN)/pytest tests/mlflow

# The statements of Sparkplug 3.0, judged anew, into the table of the page.
sparkplug-book: setup
	$(BIN)/python -m tests.sparkplug

# The page in Chromium (about 500 MB of packages).
test-browser: setup
	@bash deploy/setup-apt.sh chromium fonts-dejavu-core libatomic1
	$(BIN)/pip install -q --disable-pip-version-check playwright==1.65.2 axe-playwright-python==0.1.8
	EDGE_AGENT_CHROMIUM=$$(command -v chromium) $(BIN)/pytest -p no:cacheprovider -o junit_family=legacy --junitxml=build/browser.xml tests/browser

# The unit under a real systemd (needs root): started, reloaded, killed by its watchdog, stopped.
test-systemd: setup
	bash deploy/test-systemd.sh

# The Debian package: dist/edge-agent_VERSION_ARCH.deb. `make deb ARCH=arm64` for the other processor.
deb: setup
	ARCH=$(ARCH) bash deploy/debian/build.sh

# What is in the packages of both processors, and that the same source gives the same bytes: a minute.
test-packages: setup
	bash deploy/test-packages.sh

# The package on a booted Debian (needs root): install, upgrade, a bad version, downgrade, purge.
test-deb: deb
	bash deploy/test-systemd.sh tests/systemd/test_package.py

# By pip and pipx instead of the package, from what is tracked alone, away from the checkout.
test-pip: setup
	bash deploy/test-pip.sh

# The base system goes from Debian 12 to 13 under the installed agent (needs root, and a mirror): some minutes.
test-upgrade: deb
	bash deploy/test-systemd.sh tests/systemd/test_release.py

# The package in an emulated machine (needs root): limits of memory and tasks, kills, a power cut.
test-qemu: deb
	bash deploy/test-qemu.sh

# On 64-bit ARM, emulated (needs root): an agent with a model, and the suite's core, from wheels alone.
test-aarch64: setup
	bash deploy/test-aarch64.sh

# Pins with versions only: no download addresses.
lock: setup
	$(BIN)/pip-compile -q --extra dev --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options --no-header --no-annotate -o requirements-dev.txt pyproject.toml
