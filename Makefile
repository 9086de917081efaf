# The commands of this repository. Each works from a fresh clone: `.ci/setup.sh` brings what is missing.
# Variables: PYTHON=python3.12 (which Python makes the venv), PORT=8443 and DIR=.run (make run, make lab),
# QUICK=1 (make bench-*: a minute instead of ten; make faults: few of each), FAULTS="1 7", SEED=42, DOCS=1 (make faults: these; this
# chance; write docs/faults.md), MINUTES=10 (make fuzz; QUICK=1: one), TESTS=tests/agent (make test: only these), NO_SKIPS=1 (make test: a
# skipped test is a failure).

.DEFAULT_GOAL := help
.PHONY: help run lab picture test test-guards check bench-probe bench-accuracy bench-ingest bench-history bench-fleet-storm deploy-test faults fuzz format frontend lock dist audit clean

VENV ?= .venv
PORT ?= 8443
DIR ?= .run
TESTS ?= tests
export VENV PYTHON

BIN := $(VENV)/bin
SETUP := @sh .ci/setup.sh

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' Makefile | expand -t 16

run: ## TLS server and one agent on this machine, loopback targets, on https://127.0.0.1:8443
	$(SETUP) python run frontend
	@exec $(BIN)/pingmon demo --dir $(DIR) --port $(PORT)

lab: ## (root, Linux) a server and six agents in network namespaces, with real delay, jitter, loss and an outage
	$(SETUP) python run frontend
	@exec $(BIN)/python -m tests.lab --port $(PORT)

picture: ## (root) the screenshot of README.md, taken of a running lab
	$(SETUP) python test system frontend
	@exec $(BIN)/python -m tests.lab.picture docs/images/grid.png

test: ## everything: house rules, types, layers, then all tests (as root also system packages and namespaces)
	$(SETUP) python test system frontend peers bed ansible
	@sh .ci/check.sh
	@[ "$$(id -u)" != 0 ] || [ -z "$(filter tests tests/deploy%,$(TESTS))" ] || $(BIN)/python -m tests.deploy --prepare
	@PATH="$(CURDIR)/$(BIN):$$PATH" exec $(BIN)/python -m pytest $(TESTS) --durations=15 $(if $(NO_SKIPS),--no-skips)

test-guards: ## take each guard out of a copy of the tree: the test that names it must fail (GUARDS="3 7": only these)
	$(SETUP) python test frontend
	@exec $(BIN)/python -m tests.guards $(GUARDS)

check: ## house rules, types, layers and unit tests, in about a minute
	$(SETUP) python test frontend ansible
	@sh .ci/check.sh quick

bench-probe: ## (root, Linux) processor time, false loss and memory of the agent beside fping, icmplib and two exporters
	$(SETUP) python test peers
	@exec $(BIN)/python -m tests.bench.probe $(if $(QUICK),--quick)

bench-accuracy: ## (root, Linux) how far reported times are from the kernel's own, beside fping, ping and icmplib
	$(SETUP) python test peers
	@exec $(BIN)/python -m tests.bench.accuracy $(if $(QUICK),--quick)

bench-ingest: ## what a million samples cost the server, Prometheus and RRD files (QUICK=1: in a minute)
	$(SETUP) python test peers
	@$(BIN)/python -m tests.bench.ingest $(if $(QUICK),--quick)
	@exec $(BIN)/python -m tests.bench.store $(if $(QUICK),--quick)

bench-history: ## reading a day of 100 agents x 1,000 targets while they report, beside Prometheus (QUICK=1: of 4 x 100)
	$(SETUP) python test peers
	@exec $(BIN)/python -m tests.bench.history $(if $(QUICK),--quick)

bench-fleet-storm: ## 1,000 agents that come back after their server was stopped, and killed (QUICK=1: 100)
	$(SETUP) python test
	@exec $(BIN)/python -m tests.bench.storm $(if $(QUICK),--quick)

deploy-test: ## (root, Linux) Ansible on three real systemd hosts (TESTS="tests/deploy/test_bed.py -k power": only these)
	$(SETUP) python test bed ansible peers
	@exec $(BIN)/python -m tests.deploy $(filter-out tests,$(TESTS))

faults: ## (root for all of it) kill, cut, fill and blind a server under load, and count what is lost, doubled or changed
	$(SETUP) python test frontend
	@exec $(BIN)/python -m tests.faults $(FAULTS) $(if $(QUICK),--quick) $(if $(SEED),--seed $(SEED)) $(if $(DOCS),--docs)

fuzz: ## changed bytes at everything that reads a stranger's words; what fails is kept in tests/abuse/cases (MINUTES=10)
	$(SETUP) python test
	@exec $(BIN)/python -m tests.abuse.fuzz $(if $(QUICK),1,$(or $(MINUTES),10)) $(SEED)

format: ## rewrite the sources in the house format
	$(SETUP) python test
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format .

frontend: ## build the browser part into pingmon/static
	$(SETUP) python run frontend

lock: ## compile requirements/*.txt anew from setup.cfg, with hashes
	@sh .ci/lock.sh

dist: ## wheel and source archive, with the browser part and a bill of materials for each, in dist/
	$(SETUP) python run frontend
	@sh .ci/dist.sh
	@sh .ci/supply.sh sbom

audit: ## look all packages of the wheel up in the public vulnerability data
	$(SETUP) python run frontend
	@sh .ci/supply.sh audit

clean: ## remove everything that was built here, but not the virtual environment
	@rm -rf build dist pingmon.egg-info pingmon/static pingmon/frontend/node_modules .mypy_cache .ruff_cache .pytest_cache \
		.import_linter_cache .hypothesis
	@find pingmon pingmon_agent tests -name __pycache__ -type d -prune -exec rm -rf {} +
