# The only commands a user needs; `make` alone lists them. What they do is in stack/.

PY := .venv/bin/python
UV_VERSION := 0.13.9
UV = $(or $(shell command -v uv 2>/dev/null),$(wildcard .run/uv/bin/uv))

# What may be said on the command line, as in `make up SERVICE_PORT=8001`.
export RUNTIME SERVICE_PORT OAP_GRPC_PORT OAP_HTTP_PORT LOCUST_PORT SERVICE_NAME OAP_HEAP RUN_DIR
export OAP_EMBEDDED_CACHE MAVEN_MIRROR_URL
# An unset variable must stay unset: empty is a value.
unexport $(foreach name,RUNTIME SERVICE_PORT OAP_GRPC_PORT OAP_HTTP_PORT LOCUST_PORT SERVICE_NAME OAP_HEAP RUN_DIR \
	OAP_EMBEDDED_CACHE MAVEN_MIRROR_URL,$(if $($(name)),,$(name)))

.DEFAULT_GOAL := help
.PHONY: help up down status logs restart doctor verify load load-ui test lint clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

up: $(PY) ## bring the stack up and wait until every part answers
	@$(PY) -m stack up

down: $(PY) ## end all that `make up` started
	@$(PY) -m stack down

status: $(PY) ## show each part: state, memory, health
	@$(PY) -m stack status

logs: $(PY) ## show the last log lines (PART=oap, FOLLOW=1)
	@$(PY) -m stack logs $(PART) $(if $(FOLLOW),--follow)

restart: $(PY) ## restart one part (PART=service)
	@$(PY) -m stack restart $(or $(PART),$(error say which part, as in: make restart PART=service))

doctor: $(PY) ## check what this machine lacks before anything starts
	@$(PY) -m stack doctor

verify: $(PY) ## send a request to every endpoint, draw its trace, check it line by line
	@$(PY) -m stack verify

load: $(PY) ## 50 users for 30 s without a web page, then count the traces
	@$(PY) -m stack load

load-ui: $(PY) ## start Locust's web page
	@$(PY) -m stack load-ui

test: $(PY) ## run every test, against a real OAP that the tests start themselves
	@$(PY) -m pytest

lint: $(PY) ## check style and types
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy

clean: $(PY) ## delete traces, logs and all other state (after `make down`)
	@$(PY) -m stack down
	@rm -rf .run

# Made anew when what it is made from has changed.
$(PY): uv.lock pyproject.toml $(wildcard */pyproject.toml oap/embedded/pyproject.toml)
	@$(MAKE) --no-print-directory .uv
	@echo "installing the Python packages into .venv" >&2
	@$(UV) sync --locked --quiet || { echo "uv could not install them. It needs Python 3.11 or 3.12, or a network to fetch one:" \
		"install python3.11 or python3.12 and try again." >&2; exit 1; }
	@touch $(PY)

.PHONY: .uv
.uv:
	@command -v uv >/dev/null || test -x .run/uv/bin/uv || { \
		echo "installing uv $(UV_VERSION) into .run/uv" >&2; mkdir -p .run; \
		python3 -m venv .run/uv 2>/dev/null && .run/uv/bin/pip install --quiet uv==$(UV_VERSION) || \
		{ rm -rf .run/uv; python3 -m pip install --quiet --target .run/uv uv==$(UV_VERSION); } || \
		{ echo "uv is missing and could not be installed: install it (pip install uv) or python3-venv, then try again" >&2; exit 1; }; }
