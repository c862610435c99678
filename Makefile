# Two commands to know: `make demo` and `make test`. `make check` is what reviewers run first; `make bench` measures.
.DEFAULT_GOAL := help
PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# No interpreter is downloaded: the one on this machine is what users have.
export UV_PYTHON_DOWNLOADS := never
export UV_LINK_MODE := copy

MAKEFLAGS += --no-print-directory

.PHONY: help setup demo test test-device test-newest test-lab test-fleet test-dashboards test-arm check bench scale lock format clean

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

setup: $(READY) ## install the locked workspace into .venv

$(READY): requirements/workspace.txt shared/pyproject.toml device/pyproject.toml host/pyproject.toml tools/setup.sh
	@sh tools/setup.sh "$(PYTHON)" "$(VENV)"
	@touch $@

demo: setup ## the whole story on this machine, in under two minutes (ARGS="--keep" leaves it running)
	@$(BIN)/tflotilla demo $(ARGS)

test: setup ## every test that this machine can run; the device's from its wheels, as a board has it
	@$(BIN)/python -m pytest -n 3 --dist loadscope -m "not fleet and not dashboards" --ignore tests/device --ignore tests/slow --ignore tests/arm $(ARGS)
	@$(MAKE) test-device

test-device: setup ## the device's tests from its wheels, without TensorFlow, as a board has it
	@sh tools/test_device.sh $(BIN) ours

test-newest: setup ## the device's tests once more, on the newest Python that boards have
	@sh tools/test_device.sh $(BIN) newest

test-lab: setup ## what takes minutes: trainings, real models, ONNX with its real tool, published figures
	@$(BIN)/python -m pytest -n 2 --dist loadscope tests/slow $(ARGS)

test-fleet: setup ## rollouts, upgrades, faults of lines and boards: with real agents, sshd, systemd, networks
	@$(BIN)/python -m pytest -n 2 --dist loadscope -m fleet --ignore tests/device --ignore tests/slow --ignore tests/arm $(ARGS)

test-dashboards: setup ## the page in a real Chromium; a real Prometheus, Home Assistant and Node-RED
	@$(BIN)/python -m pytest -n 2 --dist loadscope -m dashboards -rs --ignore tests/device --ignore tests/slow --ignore tests/arm $(ARGS)

test-arm: setup ## the whole way on emulated ARM boards, arm64 and armhf; needs root and qemu-user-static
	@$(BIN)/python -m pytest -n 2 --dist loadgroup -rs tests/arm $(ARGS)

check: setup ## formatting, lint, types, architecture
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: setup ## measure what the README claims
	@$(BIN)/python -m tests.benchmarks $(ARGS)

scale: setup ## a full rollout to 10,000 simulated boards: CPU and memory
	@$(BIN)/python -m tests.benchmarks scale $(ARGS)

format: setup ## format and fix what can be fixed by itself
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock: setup ## pin every dependency again, with hashes
	@sh tools/lock.sh "$(BIN)/uv"

clean: ## remove what setup made
	rm -rf $(VENV) .tools
