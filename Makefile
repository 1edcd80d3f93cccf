# Everything a person or CI does with this repository. 'make help' lists it.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PROFILE ?= quick
TRIPLE := $(shell uname -m)-unknown-linux-gnu
# A folder of its own: other flags would make cargo build everything again at each turn.
CARGO_TARGET_DIR ?= $(CURDIR)/target
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/portico
DENY_VERSION := 0.20.2
DENY := $(CACHE)/bin/cargo-deny-$(DENY_VERSION)
# Advisories as well, where the RustSec database can be reached: DENY_CHECKS=all.
DENY_CHECKS ?= bans licenses sources
E2E_THREADS ?= 4
FUZZ_ITERATIONS ?= 200000
# Another round at each call; what is found is kept in tests/fuzz/corpus.
FUZZ_SEED ?= $(shell date +%s)
H2SPEC_VERSION := v2.2.1+incompatible
H2SPEC := $(CACHE)/bin/h2spec-$(H2SPEC_VERSION)
TESTS := $(basename $(notdir $(wildcard tests/*.rs))) $(patsubst tests/%/main.rs,%,$(wildcard tests/*/main.rs))

PACKAGES := containerd runc containernetworking-plugins iptables ebtables conntrack socat iproute2 kmod procps \
            busybox-static openssl gcc libc6-dev binutils make python3 python3-venv ca-certificates
# What end-to-end tests start as databases of control planes.
DATABASES := mariadb-server postgresql
# promtool, and the Prometheus that an end-to-end test starts.
PROMETHEUS := prometheus

CLUSTER := tests/cluster
SCRIPTS := $(addprefix $(CLUSTER)/,build demo demo-sidecar down images install packages up) tests/e2e/run tests/rules/check benches/run benches/memory benches/sidecar benches/chaos benches/soak .ci/run
RENDER := target/bin/helm template portico deploy/helm/portico --namespace portico-system --kube-version 1.34.4
export KUBECONFIG ?= $(CURDIR)/target/cluster/kubeconfig
export CARGO_TARGET_DIR

##@ Use

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: up image ## From a fresh machine to a running system with two virtual clusters, explained step by step
	@[ -x $(CLUSTER)/demo ] || { echo "there is no $(CLUSTER)/demo yet" >&2; exit 1; }
	@$(CLUSTER)/demo

.PHONY: demo-sidecar
demo-sidecar: up image ## The original form: one virtual cluster in one namespace, without admin rights, to its last trace
	@$(CLUSTER)/demo-sidecar

.PHONY: up
up: packages ## Start the local Kubernetes (twice is a no-op); portico, kubectl and helm are in target/bin
	@$(CLUSTER)/up
	@$(MAKE) binary

.PHONY: down
down: ## Stop the local Kubernetes and remove everything it left on the machine
	@$(CLUSTER)/down

.PHONY: image
image: packages binary ## Build the images (PROFILE=release: optimized) and put them into the running cluster
	@$(CLUSTER)/build control-plane
	@$(CLUSTER)/images pause busybox agnhost portico syncer control-plane k3s-stand-in

.PHONY: archives
archives: packages binary ## Portico's and the control planes' images as OCI archives in target/image, for a cluster of your own (PROFILE=release)
	@$(CLUSTER)/build control-plane
	@$(CLUSTER)/images portico syncer control-plane

##@ Develop

.PHONY: test
test: ## Everything CI checks: lint, unit and component tests, end to end on the local Kubernetes
	@for part in lint unit e2e; do began=$$SECONDS; $(MAKE) $$part; echo "=== $$part: $$((SECONDS - began)) s"; done

.PHONY: lint
lint: fmt-check scripts rules-check deny clippy rustdoc ## Formatting, clippy and rustdoc without warnings, licences and sources, shell syntax, alerts

.PHONY: unit
unit: ## Unit, component and architecture tests
	cargo test --locked --lib --bins $(addprefix --test ,$(filter-out e2e,$(TESTS)))

.PHONY: e2e
e2e: up image databases prometheus go-test manifests-check ## End-to-end tests against the local Kubernetes
	@if [ -x tests/e2e/run ]; then PORTICO_E2E_KUBECONFIG=$(CURDIR)/target/cluster/kubeconfig E2E_THREADS=$(E2E_THREADS) tests/e2e/run; \
	elif [ -f tests/e2e.rs ]; then PORTICO_E2E_KUBECONFIG=$(CURDIR)/target/cluster/kubeconfig cargo test --locked --test e2e -- --test-threads=$(E2E_THREADS); \
	else echo "no end-to-end tests yet"; fi

.PHONY: e2e-forms
e2e-forms: up image databases ## The tests of the tenant's side in every form and with every datastore (half an hour)
	@tests/e2e/run --forms

.PHONY: isolation
isolation: ## The isolation suite alone: each attack, what is right, what was seen (end to end too where 'make up image' was)
	@if [ -x target/bin/h2spec ]; then export PORTICO_H2SPEC=$(CURDIR)/target/bin/h2spec; fi; \
	cargo test --quiet --locked --test isolation -- --ignored --nocapture --exact table

.PHONY: fuzz
fuzz: ## What reads foreign bytes, over a mutated corpus, for long (FUZZ_ITERATIONS, FUZZ_SEED); 'make unit' does a short round
	PORTICO_FUZZ_ITERATIONS=$(FUZZ_ITERATIONS) PORTICO_FUZZ_SEED=$(FUZZ_SEED) cargo test --locked --lib -- fuzzed:: any_stream any_page

.PHONY: h2spec
h2spec: ## The cases of h2spec against the gateway of the tests
	@[ -x "$(H2SPEC)" ] || { folder=$$(mktemp -d) && mkdir -p "$(CACHE)/bin" && \
	  GOFLAGS=-mod=mod GOBIN="$$folder" go install github.com/summerwind/h2spec/cmd/h2spec@$(H2SPEC_VERSION) && \
	  mv "$$folder/h2spec" "$(H2SPEC)" && rmdir "$$folder"; }
	@mkdir -p target/bin && ln -sf "$(H2SPEC)" target/bin/h2spec
	PORTICO_H2SPEC=$(CURDIR)/target/bin/h2spec cargo test --locked --test gateway -- --ignored --nocapture h2spec::

.PHONY: bench
bench: up image ## Measure against the real proxies and direct calls (docs/performance.md)
	@if [ -x benches/run ]; then benches/run; else cargo bench --locked; fi

.PHONY: fmt
fmt: ## Format the code
	cargo fmt --all
	gofmt -w deploy/control-plane $(CLUSTER)/kube tests/e2e/issuer

.PHONY: generated
generated: crd manifests ## Write everything that is generated and committed; tests compare it

.PHONY: crd
crd: ## Write the CRD (config and chart), docs/config.md, docs/metrics.md and docs/virtualcluster.md from the types, docs/security-tests.md from its rows
	PORTICO_BLESS=1 cargo test --quiet --locked --lib -- operator::tests::crd_files config::docs:: crd::docs:: app::metrics_page::the_committed
	PORTICO_BLESS=1 cargo test --quiet --locked --test isolation -- the_committed_page

.PHONY: manifests
manifests: crd ## Render deploy/manifests from the chart
	@$(CLUSTER)/build helm
	$(RENDER) >deploy/manifests/portico.yaml.new && mv deploy/manifests/portico.yaml.new deploy/manifests/portico.yaml

##@ Parts of the above

.PHONY: binary
binary: ## The static portico binary, also at target/bin/portico
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --profile $(PROFILE) --target $(TRIPLE) --bin portico
	@mkdir -p target/bin
	@strip -o target/bin/portico.new "$(CARGO_TARGET_DIR)/$(TRIPLE)/$(PROFILE)/portico" && mv target/bin/portico.new target/bin/portico

.PHONY: fmt-check
fmt-check:
	cargo fmt --all --check
	@test -z "$$(gofmt -l deploy/control-plane $(CLUSTER)/kube tests/e2e/issuer)" || { echo "run 'make fmt': $$(gofmt -l deploy/control-plane $(CLUSTER)/kube tests/e2e/issuer)" >&2; exit 1; }

.PHONY: clippy
clippy:
	cargo clippy --locked --all-targets -- -D warnings

# After clippy, which has checked what this needs of others.
.PHONY: rustdoc
rustdoc:
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

.PHONY: deny
deny:
	@if [ -x "$(DENY)" ]; then "$(DENY)" --locked check $(DENY_CHECKS); \
	elif command -v cargo-deny >/dev/null; then cargo deny --locked check $(DENY_CHECKS); \
	else echo "cargo-deny is not installed: licences and sources are not checked ('make cargo-deny' installs it)" >&2; fi

# Several minutes of compiling, once: kept outside the clone.
.PHONY: cargo-deny
cargo-deny: ## Install cargo-deny into the cache folder
	@[ -x "$(DENY)" ] || { root=$$(mktemp -d) && mkdir -p "$(CACHE)/bin" && \
	  CARGO_TARGET_DIR="$$root/target" cargo install --quiet --locked --root "$$root" --version $(DENY_VERSION) cargo-deny && \
	  mv "$$root/bin/cargo-deny" "$(DENY)" && rm -rf "$$root"; }

.PHONY: scripts
scripts:
	@for f in $(SCRIPTS) $(CLUSTER)/{lib,pki,walk}.sh benches/processes.sh; do bash -n "$$f"; done
	@python3 -m py_compile $(CLUSTER)/image.py && rm -rf $(CLUSTER)/__pycache__
	@if command -v shellcheck >/dev/null; then shellcheck -S warning -x $(SCRIPTS); fi

# Dashboards, alerts and runbooks are compared with each other by the architecture test.
.PHONY: rules-check
rules-check: ## Alerts with promtool, and what the chart makes for Prometheus and Grafana (each where the program is installed)
	@tests/rules/check

# The CRD, docs/config.md, docs/metrics.md and docs/virtualcluster.md are compared by unit tests; this one needs helm, which 'make up' brings.
.PHONY: manifests-check
manifests-check: rules-check
	@$(RENDER) | diff -u deploy/manifests/portico.yaml - || { echo "deploy/manifests/portico.yaml is stale: make generated" >&2; exit 1; }

.PHONY: packages
packages: ## Install the operating system's packages that are missing (Debian, Ubuntu)
	@$(CLUSTER)/packages $(PACKAGES)

# With the flags of tests/cluster/build, so that nothing is compiled twice.
.PHONY: go-test
go-test: ## Unit tests of the control plane, and of what enforces NetworkPolicies in the local cluster
	cd deploy/control-plane && CGO_ENABLED=1 GOFLAGS=-buildvcs=false go test -trimpath -tags "sqlite_omit_load_extension netgo osusergo" .
	cd $(CLUSTER)/kube && CGO_ENABLED=1 GOFLAGS=-buildvcs=false go test -trimpath -tags "sqlite_omit_load_extension netgo osusergo" ./policies

.PHONY: databases
databases: ## Install the servers that end-to-end tests use (Debian, Ubuntu); none is started
	@$(CLUSTER)/packages $(DATABASES)

.PHONY: prometheus
prometheus: ## Install Prometheus and promtool for tests (Debian, Ubuntu); nothing is started
	@$(CLUSTER)/packages $(PROMETHEUS)
