# The commands of this project. Each sees to what it needs (Debian packages, .venv) and says in one sentence what is
# missing when it cannot. `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

# The system's Python, not the first one on the path: that may live in a home directory, where the servers' uid cannot go.
PYTHON := /usr/bin/python3
comma := ,
RUN := .venv/bin/python
PIP := $(RUN) -m pip -qq --disable-pip-version-check --no-input

PACKAGES := python3-venv e2fsprogs mount util-linux
TEST_PACKAGES := gcc libc6-dev linux-libc-dev libfuse3-dev pkg-config fuse3 fuse2fs squashfuse squashfs-tools strace procps \
	systemd dbus dbus-user-session libnss-systemd libpam-systemd iproute2 zsh fish git

# What may not be missing where the tests run. `make test MUST_HAVE=` takes the machine as it is, and skips.
# atheris comes as a wheel for x86-64 alone.
MUST_HAVE ?= root,fuse,loop,ext4,userns,netns,gcc,e2fsprogs,fuse2fs,fusermount3,libfuse3,squashfuse,strace,installed,hatchling,zsh,fish,systemd$(if $(filter x86_64,$(shell uname -m)),$(comma)atheris)
PYTEST_ARGS ?=

.PHONY: help
help: ## list the commands
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1\t\2/p' Makefile | expand -t 14

.PHONY: demo
demo: setup can-mount ## mount a real ext4 image through a server without rights, and compare it with the kernel's own mount
	@$(RUN) -m demo

.PHONY: test
test: dev $(if $(MUST_HAVE),can-mount) ## set up and run all tests; MUST_HAVE= skips what this machine cannot do
	@umask 022; $(RUN) -m pytest --must-have=$(MUST_HAVE) $(PYTEST_ARGS)

.PHONY: bench
bench: dev can-mount ## measure against C FUSE servers from Debian
	@$(RUN) -m bench

.PHONY: lint
lint: dev ## ruff and mypy
	@$(RUN) -m ruff check . && $(RUN) -m ruff format --check . && $(RUN) -m mypy

.PHONY: setup
setup: packages .venv/installed ## make .venv with the programs in .venv/bin

.PHONY: dev
dev: packages test-packages .venv/dev ## setup, and what the tests need

.PHONY: clean
clean: ## remove what these commands made
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
	@find src tests bench demo -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: packages test-packages
packages:
	@sh scripts/need-packages "make" $(PACKAGES)
test-packages:
	@sh scripts/need-packages "make" $(TEST_PACKAGES)

# In steps, so that the demo of a stranger installs no test tools. umask: the servers' uid must be able to read it all.
.venv/python: | packages
	@umask 022; [ -x $(RUN) ] || $(PYTHON) -m venv .venv
	@touch $@

.venv/installed: pyproject.toml scripts/fuservicemount scripts/fuservice $(wildcard docs/man/*) | .venv/python
	@echo "make: installing fuservice into .venv"
	@umask 022; $(PIP) install --editable . || { echo "make: pip could not install fuservice into .venv: is a package index in reach?" >&2; exit 1; }
	@touch $@

.venv/dev: .venv/installed
	@echo "make: installing the tools for tests into .venv"
	@umask 022; $(PIP) install --upgrade 'pip>=25.1' && $(PIP) install --group dev || { echo "make: pip could not install the test tools into .venv: is a package index in reach?" >&2; exit 1; }
	@touch $@

.PHONY: can-mount
can-mount:
	@[ "$$(id -u)" = 0 ] || { echo "make: mounting needs root: try  sudo make $(firstword $(MAKECMDGOALS))$(if $(filter test,$(MAKECMDGOALS)),  or, for the tests that need no rights,  make test MUST_HAVE=)" >&2; exit 1; }
	@[ -c /dev/fuse ] || modprobe fuse 2>/dev/null || :
	@{ [ -c /dev/fuse ] && (: <>/dev/fuse); } 2>/dev/null || { echo "make: /dev/fuse cannot be opened: load the kernel's fuse module (modprobe fuse), or start this container with --device /dev/fuse --cap-add SYS_ADMIN" >&2; exit 1; }
	@unshare -m true 2>/dev/null || { echo "make: no mount namespace can be made here: in a container, start it with --cap-add SYS_ADMIN (and without the default AppArmor profile)" >&2; exit 1; }
