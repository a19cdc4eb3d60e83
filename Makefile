# The only commands a user needs; `make` alone lists them. What they do is in stack/.

PY := .venv/bin/python
# What the stack needs is in .venv, and what developers need beside it.
SYNCED := .venv/.synced
TOOLS := .venv/.tools
# Tests mostly wait, so three at once suit two cores. What belongs together stays in one process: see conftest.py.
PARALLEL := --numprocesses=3 --dist=loadfile --no-loadscope-reorder
# Tests of one part that start real servers for long: they run with the tests across parts.
SERVERS := oap/embedded/tests/test_database.py service/tests/test_leftovers.py service/tests/test_workers.py stack/tests/test_own_redis.py \
	stack/tests/test_portable.py stack/tests/test_runtime_native.py stack/tests/test_runtime_start.py
# Schemathesis is a plugin that takes half a second to load in each process; only tests/test_openapi.py needs it.
UNIT_PYTEST := $(PARALLEL) -p no:schemathesis $(addprefix --ignore=,$(SERVERS))
UNIT := $(filter-out tracing/mutants/%,$(wildcard */tests */*/tests))
MEMBERS := $(filter-out tracing/mutants,$(patsubst %/pyproject.toml,%,$(wildcard */pyproject.toml */*/pyproject.toml)))
PARTS := $(sort $(notdir $(wildcard */src/* */*/src/*)))

# What may be said on the command line, as in `make up SERVICE_PORT=8001`; the last line is for single commands.
VARIABLES := RUNTIME IMAGES STORAGE UI BROKER_URL WORKERS LOCUST_WORKERS RUN_DIR ALLOWED_HOSTS SERVICE_NAME START_SECONDS OAP_HEAP \
	OAP_EMBEDDED_CACHE MAVEN_MIRROR_URL SERVICE_PORT CONSOLE_PORT UI_PORT LOCUST_PORT LOCUST_MASTER_PORT OAP_GRPC_PORT OAP_HTTP_PORT \
	BANYANDB_HTTP_PORT REDIS_PORT RABBITMQ_UI_PORT CONSUMER_PORT WORKER_PORT PART LINES FOLLOW SCENARIO USERS RATE DURATION TASK_SECONDS PROCESSES TAGS TRACE_CLIENT QUICK \
	BROKER VARIANTS DOCS NAME JSON SERVICE_URL OAP_URL PATHS
# As they were typed: a `$` in a name is a sign like any other.
$(foreach name,$(VARIABLES),$(if $(filter command%,$(origin $(name))),$(eval override $(name) := $$(value $(name)))))
export $(VARIABLES)
# An unset variable must stay unset: empty is a value.
unexport $(foreach name,$(VARIABLES),$(if $($(name)),,$(name)))

COMPARE_OPTIONS = $${BROKER:+--broker "$$BROKER"} $${VARIANTS:+--variants $$VARIANTS} \
	$(if $(filter-out 0,$(QUICK)),--quick) $(if $(filter-out 0,$(DOCS)),--docs)

AS_JSON = $(if $(filter-out 0,$(JSON)),--json)

.DEFAULT_GOAL := help
.PHONY: help up down status logs restart doctor verify load load-ui compare crash incident report screenshots test test-unit test-end-to-end coverage bench mutants \
	package fmt lint clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

up: $(SYNCED) ## bring the stack up and wait until every part answers
	@$(PY) -m stack up

down: $(SYNCED) ## end all that `make up` started
	@$(PY) -m stack down

status: $(SYNCED) ## show each part: state, memory, health (JSON=1: for programs)
	@$(PY) -m stack status $(AS_JSON)

logs: $(SYNCED) ## show the last log lines (PART=oap, LINES=100, FOLLOW=1)
	@$(PY) -m stack logs $${PART:+"$$PART"} $(if $(findstring LINES=,$(MAKEOVERRIDES)),--lines "$$LINES") $${FOLLOW:+--follow}

restart: $(SYNCED) ## restart one part (PART=service)
	@$(PY) -m stack restart $${PART:+"$$PART"}

doctor: $(SYNCED) ## check that this machine has what the stack needs (JSON=1)
	@$(PY) -m stack doctor $(AS_JSON)

verify: $(SYNCED) ## send a request to every endpoint, draw its trace, check it (JSON=1); a service of yours: SERVICE_URL, OAP_URL, PATHS
	@$(PY) -m stack verify $(AS_JSON) $${SERVICE_URL:+--service-url "$$SERVICE_URL"} $${OAP_URL:+--oap-url "$$OAP_URL"} \
		$${PATHS:+--paths $$PATHS} $${TASK_SECONDS:+--task-seconds "$$TASK_SECONDS"}

load: $(SYNCED) ## load the service and count the traces (SCENARIO=list; USERS, RATE, DURATION, TAGS, PROCESSES, TRACE_CLIENT=1, JSON=1)
	@$(PY) -m stack load $(AS_JSON) $${SCENARIO:+--scenario "$$SCENARIO"} $${USERS:+--users "$$USERS"} \
		$${RATE:+--rate "$$RATE"} $${DURATION:+--duration "$$DURATION"} \
		$${TASK_SECONDS:+--task-seconds "$$TASK_SECONDS"} $${PROCESSES:+--processes "$$PROCESSES"} \
		$${TAGS:+--tags $$TAGS} $(if $(filter-out 0,$(TRACE_CLIENT)),--trace-client)

report: $(SYNCED) ## measure the claims of docs/claims.md, write report.html and report.md (QUICK=1: one minute)
	@$(PY) -m stack report $(if $(filter-out 0,$(QUICK)),--quick)

compare: $(SYNCED) ## measure the ways to run work beside a request (BROKER=redis|rabbitmq, VARIANTS="celery queue", QUICK=1, DOCS=1)
	@$(PY) -m stack compare $(COMPARE_OPTIONS)

crash: $(SYNCED) ## kill what does the work, and count what each of them loses (the same variables)
	@$(PY) -m stack crash $(COMPARE_OPTIONS)

incident: $(SYNCED) ## play a guided incident, before and after one switch (NAME=sequential; without a name: list them)
	@$(PY) -m stack incident $${NAME:+"$$NAME"}

# `make incident sequential` means the same: the second word is no target, and has nothing to do.
ifeq ($(firstword $(MAKECMDGOALS)),incident)
INCIDENT := $(filter sequential threads neighbour killed,$(MAKECMDGOALS))
ifneq ($(INCIDENT),)
override NAME := $(INCIDENT)
export NAME
.PHONY: $(INCIDENT)
$(INCIDENT): incident ; @:
endif
endif

load-ui: $(SYNCED) ## start Locust's web page
	@$(PY) -m stack load-ui

screenshots: $(TOOLS) ## make docs/screenshots/ and docs/tour/ from the running stack, with 1,000 tasks at once (needs Chromium, SERVICE_PROFILING_ENABLED)
	@$(PY) docs/screenshots.py
	@$(PY) docs/tour.py

test: test-unit test-end-to-end ## run every test

test-end-to-end: $(TOOLS) ## run the tests that need real servers: an OAP, brokers, a browser, a stack (ARGS="-k name")
	@$(PY) -m pytest $(PARALLEL) tests $(SERVERS) $(ARGS)

# The library's tests are by themselves: they want a process in which nothing has started the agent.
test-unit: $(TOOLS) ## run the tests that need no server (UNIT_ARGS="-p randomly": in random order)
	@$(PY) -m pytest $(UNIT_PYTEST) tracing/tests $(UNIT_ARGS)
	@$(PY) -m pytest $(UNIT_PYTEST) $(filter-out tracing/tests,$(UNIT)) $(UNIT_ARGS)

coverage: ## what `make test-unit UNIT_ARGS=--cov` has covered, part by part
	@for part in $(PARTS); do printf '%s %s %%\n' "$$part" \
		"$$(.venv/bin/coverage report --format=total --include="*/$$part/*")"; done

bench: ## what tracing costs: untraced, SkyWalking's plugin, ours and its features, OpenTelemetry (35 min; ARGS="--tasks 1000 --rounds 1": 3 min)
	@sh stack/bootstrap.sh --group bench
	@$(PY) bench/run.py $(ARGS)
	@$(if $(ARGS),,$(PY) bench/features.py)

mutants: ## change the library line by line: do its tests notice? (MODULE=_names CHILDREN=1: some minutes on one core)
	@sh stack/bootstrap.sh --group mutants
	@cd tracing && ../$(PY) -m mutmut run $(if $(CHILDREN),--max-children $(CHILDREN)) "skywalking_background.$(or $(MODULE),*).*"
	@cd tracing && ../$(PY) -m mutmut results --all true | awk -F ': *' \
		'/ skywalking_background\.$(if $(MODULE),$(MODULE)\.)/ && $$2 != "not checked" { all++; if ($$2 != "killed" && $$2 != "timeout") { left++; print } } \
		END { printf "%d of %d mutants live; mutmut show NAME, in tracing/, prints one\n", left, all }'

package: ## build the library's distributions into .run/dist and check them as a package index would
	@sh stack/bootstrap.sh --group package
	@uv=$$(command -v uv || echo .run/uv/bin/uv); $$uv build --quiet --clear --out-dir .run/dist tracing
	@.venv/bin/twine check --strict .run/dist/*.whl .run/dist/*.tar.gz
	@.venv/bin/check-wheel-contents .run/dist/*.whl

fmt: $(TOOLS) ## format the code, and fix what ruff can fix
	@.venv/bin/ruff check --fix --show-fixes
	@.venv/bin/ruff format

lint: $(TOOLS) ## check style, types, the arrows between the parts, declared dependencies
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/oxlint -c ui/.oxlintrc.json --deny-warnings ui
	@$(PY) -m mypy
	@$(PY) -m mypy --config-file tests/mypy.ini
	@.venv/bin/lint-imports --no-cache --no-logo
	@for part in $(MEMBERS); do said=$$(cd $$part && "$(CURDIR)/.venv/bin/deptry" src 2>&1) || { echo "$$said"; exit 1; }; done

clean: $(SYNCED) ## end the stack and delete its traces and logs
	@$(PY) -m stack clean

# Made again when one of their sources has changed, and when .venv is broken. Stamps, as .venv/bin/python is a link to an
# interpreter of others.
$(SYNCED) $(TOOLS): uv.lock pyproject.toml $(wildcard */pyproject.toml */*/pyproject.toml) \
		$(shell $(PY) -c 'import stack' >/dev/null 2>&1 || echo FORCE)
	@sh stack/bootstrap.sh $(if $(filter $(SYNCED),$@),--no-group dev --inexact)
	@touch $@

.PHONY: FORCE
FORCE:
