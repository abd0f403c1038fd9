# StreamRec's one runner. `make help` explains its words.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

export STREAMREC_HOME ?= $(CURDIR)/.streamrec
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || echo python3)
DATA ?= data/movielens-small
SEEDS ?= 0,1,2
VENV := $(STREAMREC_HOME)/venv
TRITON_VENV := $(STREAMREC_HOME)/venv-triton
BIN := $(VENV)/bin
PIP_FLAGS := --quiet --disable-pip-version-check

.PHONY: help setup serve test engines page check lint types imports fmt train evaluate bench baseline capacity peers million promises sweep triton-options gpu load chaos lock proto clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.installed-dev $(TRITON_VENV)/.installed ## Make the environments: one for the service, one for Triton

serve: $(VENV)/.installed $(TRITON_VENV)/.installed ## Train a bundle if there is none, start Redis, Triton and the API; Ctrl-C stops all
	@exec $(BIN)/streamrec serve

train: $(VENV)/.installed ## Train a bundle on DATA (default: data/movielens-small)
	$(BIN)/streamrec train --data $(DATA)

evaluate: $(VENV)/.installed ## Measure models and baselines on DATA's test part (SEEDS=0,1,2); a report lands under HOME
	$(BIN)/streamrec evaluate --data $(DATA) --seeds $(SEEDS)

test: setup ## Run every test, against real Redis, Triton, HTTP and gRPC
	$(BIN)/python -m pytest

engines: setup ## The batch step on Spark in local mode, equal to the embedded engine (needs Java 17)
	@command -v java >/dev/null || { echo "make engines needs Java 17 on the PATH"; exit 1; }
	@$(BIN)/pip install $(PIP_FLAGS) --constraint constraints.txt --editable '.[spark]'
	$(BIN)/python -m pytest tests/engines -m spark

page: setup ## The page in headless Chromium, over the real service (needs Debian's chromium)
	@command -v chromium >/dev/null || { echo "make page needs chromium on the PATH (on Debian: apt-get install chromium)"; exit 1; }
	$(BIN)/python -m pytest tests/page -m page

check: lint types imports ## Lint, types and import rules

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

imports: setup
	$(BIN)/lint-imports

fmt: setup ## Format the code and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## What each stage costs in units of a no-op endpoint; fails where one is over 20 % above the baseline
	$(BIN)/python -m benchmarks.online_read
	$(BIN)/python -m benchmarks.feature_watch
	$(BIN)/python -m benchmarks.reranking
	$(BIN)/python -m benchmarks.stages --check

baseline: setup ## Make this machine's costs the baseline that `make bench` compares with
	$(BIN)/python -m benchmarks.stages --write

capacity: setup ## Measure the CPU of a request at two rates, check its targets, and write docs/capacity.md from it
	$(BIN)/python -m benchmarks.cpu_per_request --rates 50 100 --json benchmarks/cpu.json --write
	$(BIN)/python -m benchmarks.capacity

peers: setup ## Our p95 beside LibRecommender's serving and the stack put together from documentation, at their limits
	$(BIN)/python -m benchmarks.peers.compare assembled --gate --write
	$(BIN)/python -m benchmarks.peers.compare librecommender --gate --write

gpu: setup ## The ranker and FAISS on a GPU, where there is one (needs the extra gpu)
	$(BIN)/python -m benchmarks.gpu

million: setup ## A million items and users (BUNDLE, else made up, which takes minutes) beside MovieLens: time, memory, recall
	$(BIN)/python -m benchmarks.million $(if $(BUNDLE),--bundle $(BUNDLE)) --write

promises: setup ## The promises of speed on a service of its own: steady, highest, start, swap (4 minutes, a quiet machine)
	$(BIN)/python -m benchmarks.promises --write

sweep: setup ## Latency against offered rate, as table and picture (3 minutes, a quiet machine)
	$(BIN)/python -m loadtests.sweep --write

triton-options: setup ## Batching, shared memory, threads, instances and int8 in Triton, each against the default (5 minutes)
	$(BIN)/python -m benchmarks.triton_options --write

load: setup ## Open-loop load on the running service; GATE names the promises of loadtests/budget.toml (default: steady)
	$(BIN)/python -m loadtests.open_loop --gate $(or $(GATE),steady)

chaos: setup ## Break every dependency of a service of its own under load, and see what holds (9 minutes; CHAOS=names)
	$(BIN)/python -m loadtests.chaos $(CHAOS) --bundle $(or $(BUNDLE),$(STREAMREC_HOME)/current) $(if $(CHAOS),,--write)

proto: setup ## Generate the messages from app/proto
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. app/proto/streamrec/v1/*.proto

lock: ## Renew constraints.txt and constraints-triton.txt from the newest versions that pyproject.toml allows
	bash deploy/lock.sh $(PYTHON)

clean: ## Remove everything the service wrote, except the environments
	find $(STREAMREC_HOME) -mindepth 1 -maxdepth 1 ! -name 'venv*' -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' || \
	  { echo "StreamRec needs Python 3.11 or 3.12; name one with PYTHON=..., for example make serve PYTHON=/usr/bin/python3.11"; exit 1; }
	@echo "Making the service's environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing the packages that train and serve (a few minutes the first time)"
	@$(BIN)/pip install $(PIP_FLAGS) --constraint constraints.txt --editable '.[train,features,local]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing the packages that test"
	@$(BIN)/pip install $(PIP_FLAGS) --constraint constraints.txt --editable '.[train,features,local,load,dev]'
	@touch $@

# Triton comes with a wheel that needs an older numpy, so it has an environment of its own. Only its server is used:
# --no-deps leaves out what the rest of that wheel would need.
$(TRITON_VENV)/.installed: constraints-triton.txt
	@echo "Making Triton's environment in $(TRITON_VENV)"
	@$(PYTHON) -m venv $(TRITON_VENV)
	@if $(TRITON_VENV)/bin/pip install $(PIP_FLAGS) --no-deps --requirement constraints-triton.txt; then touch $@; \
	  else echo "Triton could not be installed here: the service will rank with logistic regression (SIMPLE_RANKING)"; fi
