# Targets document themselves: `make help`.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
PYTEST := $(BIN)/pytest
# Two packages of the checkout, run from where they are.
export PYTHONPATH := operator:tests/simulator
# Where it is set, every Python of the tests, and there are thousands, compiles what it imports.
unexport PYTHONDONTWRITEBYTECODE
UV_VERSION := 0.13.8
LOCK := $(BIN)/uv pip compile pyproject.toml -q --generate-hashes --no-emit-index-url --python-version 3.11 --python-platform linux --custom-compile-command "make lock"

.PHONY: help
help: ## Show the targets.
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  \033[36m%-18s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.stamp: requirements/dev.txt
	@test -x $(BIN)/uv || { python3 -m venv $(VENV) && $(BIN)/pip -q install uv==$(UV_VERSION); }
	@$(BIN)/uv pip sync -q --require-hashes requirements/dev.txt
	@touch $@

.PHONY: venv
venv: $(VENV)/.stamp ## Make the Python environment from the locked requirements.

.PHONY: lock
lock: ## Lock the requirements again after a change of pyproject.toml.
	$(LOCK) --extra operator --extra session --extra cli --group dev -o requirements/dev.txt
	$(LOCK) --extra operator -c requirements/dev.txt -o requirements/operator.txt
	$(LOCK) --extra session -c requirements/dev.txt -o requirements/session.txt
	$(LOCK) --group simulator -c requirements/dev.txt -o requirements/simulator.txt
	$(LOCK) --group build -c requirements/dev.txt -o requirements/build.txt

.PHONY: lint
lint: venv ## Check format, lint, types and the direction of imports.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy operator images tests charts
	$(BIN)/lint-imports

.PHONY: crds
crds: venv ## Generate crds/ and the chart's copy from the models.
	$(PY) -m whatsapp_operator.api.crd > crds/whatsapp-operator.io_whatsappsessions.yaml
	cp crds/whatsapp-operator.io_whatsappsessions.yaml charts/whatsapp-operator/files/

.PHONY: docs
docs: venv ## Generate the pages that follow from the code, and build the site in dist/site.
	$(PY) -m tests.documentation.troubleshooting > docs/troubleshooting.md
	$(PY) -m tests.documentation.api > docs/api.md
	$(PY) -m tests.documentation.options > docs/options.md
	$(PY) -m charts.observability
	$(PY) -m charts.readme
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.PHONY: format
format: venv ## Format the code and mend what the linter can.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: test
test: ## Run everything, fast to slow: lint, unit, integration, end to end; takes the local cluster down at the end.
	$(MAKE) lint
	$(MAKE) test-unit
	$(MAKE) test-integration
	$(MAKE) test-e2e
	$(MAKE) test-teardown

.PHONY: test-unit
test-unit: venv ## Test the pure parts; no network, no root.
	$(PY) -m tests.cluster build prometheus helm actionlint
	$(PYTEST) tests/unit tests/release tests/observability tests/chart -n 2

.PHONY: test-integration
test-integration: venv ## Test against a real API server, and a real neonize against the simulator.
	$(PY) -m tests.cluster build kubernetes etcd gitops helm
	$(PYTEST) tests/integration -n 6

.PHONY: test-e2e
test-e2e: deploy ## Test real pods on the local cluster, which stays up.
	$(PY) -m tests.observability.prometheus
	since=$$(date -u +%FT%TZ); $(PYTEST) tests/e2e -m "not alone" -n 3 --dist loadfile; \
	E2E_BESIDE_SINCE=$$since $(PYTEST) tests/e2e -m alone

.PHONY: test-teardown
test-teardown: venv ## Take the local cluster down and check that it leaves nothing behind.
	$(PYTEST) tests/teardown

.PHONY: test-soak
test-soak: venv ## Run the random tests at full count; commit the result file.
	$(PYTEST) tests/unit -m hypothesis --hypothesis-profile=soak --soak-report=tests/soak.md
	$(PYTEST) tests/integration/session/test_kills.py --hypothesis-profile=soak
	$(PY) -m tests.cluster build kubernetes etcd helm
	$(PYTEST) tests/integration/test_controller_oracle.py --hypothesis-profile=soak

.PHONY: soak-day
soak-day: venv ## Run 20 sessions through a day of random faults in half an hour; commit the result page.
	$(PY) -m tests.benchmarks.day_of_faults --report docs/soak.md $(ARGS)

.PHONY: benchmark
benchmark: deploy ## Measure the numbers of one session on the local cluster.
	$(PY) -m tests.benchmarks.one_session

.PHONY: bench
bench: venv ## Measure the operator with thousands of sessions, on a control plane of its own (ARGS, see docs/performance.md).
	$(PY) -m tests.benchmarks.controller $(ARGS)

.PHONY: cluster-up
cluster-up: venv ## Bring up a Kubernetes node on this machine (root on Debian 12; nothing outside its directory is kept).
	$(PY) -m tests.cluster packages
	$(PY) -m tests.cluster build
	$(PY) -m tests.cluster up

.PHONY: cluster-down
cluster-down: venv ## Remove the local cluster: every process, mount, interface and file that it made.
	$(PY) -m tests.cluster down

.PHONY: kubeconfig
kubeconfig: venv ## Print the path of the local cluster's kubeconfig.
	@$(PY) -m tests.cluster kubeconfig

.PHONY: environment
environment: venv ## Print what a shell needs for kubectl and helm to act on the local cluster: eval "$$(make -s environment)".
	@$(PY) -m tests.cluster environment

# With CONTEXT, another cluster is acted on: the local one is not brought up, and images come from REGISTRY.
CLUSTER := $(if $(CONTEXT),venv,cluster-up)

.PHONY: images
images: $(CLUSTER) ## Build all images without Docker and load them into the local cluster.
	$(PY) -m images.build $(if $(CONTEXT),--no-load)

.PHONY: deploy
deploy: $(if $(CONTEXT),venv,images) ## Install operator and simulator on the local cluster (another: KUBECONFIG, CONTEXT, REGISTRY, TAG).
	$(PY) -m tests.deploy --simulator

.PHONY: values
values: venv ## Print the chart's values that name the images of this checkout.
	@$(PY) -m tests.deploy --values

.PHONY: manifests
manifests: venv ## Render the chart into dist/whatsapp-operator.yaml, for an installation by kubectl alone.
	@mkdir -p dist
	$(PY) -m charts.render < /dev/null > dist/whatsapp-operator.yaml

.PHONY: simulator-up
simulator-up: $(if $(CONTEXT),venv,images) ## Run the WhatsApp simulator in the cluster; sessions of namespace default can trust it.
	$(PY) -m tests.phone up

.PHONY: scan
scan: venv ## Let the simulated phone scan the QR of a session: SESSION=demo.
	@$(PY) -m tests.phone scan $(or $(SESSION),demo)

.PHONY: demo
demo: deploy ## Show the main job on a real cluster, as a timeline; leaves the cluster up.
	$(PY) -m tests.demo

.PHONY: simulator
simulator: venv ## Run the WhatsApp simulator in the foreground: ARGS="--state DIR --proxy-port P --control-port C".
	$(PY) -m whatsapp_simulator $(ARGS)

.PHONY: run
run: deploy ## Run the operator outside the cluster, in place of the one inside (or KUBECONFIG and CONTEXT).
	$(PY) -m tests.run

.PHONY: audit
audit: venv ## Fail on locked packages with known vulnerabilities, or when no database answers (OSV_URL, OSV_DATABASE).
	$(PY) -m images.audit $(if $(OSV_URL),--osv-url $(OSV_URL)) $(if $(OSV_DATABASE),--database $(OSV_DATABASE))

.PHONY: release
release: venv ## Build all that is released of VERSION=x.y.z into dist/release, the images for REGISTRY (docs/release.md).
	@test -n '$(VERSION)' || { echo "say which: make release VERSION=x.y.z" >&2; exit 1; }
	$(PY) -m images.release '$(VERSION)' --registry='$(REGISTRY)'

.PHONY: clean
clean: ## Remove what make made in this checkout (the user's caches stay, see CONTRIBUTING.md).
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
