# `make demo` shows the product. Every change must pass `make test`, and every release `make
# verify`.
.DEFAULT_GOAL := test
.PHONY: FORCE bench browser demo deps fuzz generate image lint plain profile race release reproducible screenshots soak test verify vuln

# A release has no C code, so that its programs are static. Tests and linters build the same. Only
# the race detector needs C.
export CGO_ENABLED := 0

# Where `make release` and `make image` write, and for which systems.
DIST ?= dist
SYSTEMS ?= linux-amd64 linux-arm64 darwin-amd64 darwin-arm64

# How long `make fuzz` runs each target, and how long `make soak` runs its load.
FUZZTIME ?= 30s
SOAK ?= 10m

# How many schedules of six days `make soak` simulates on each database.
SCHEDULES ?= 10

# The tests of web/e2e that measure what docs/reliability.md shows.
measured := ^(TestFaults|TestRollingRestart)$$

# The versions are fixed. These tools are not in go.mod, because their dependencies are not ours.
golangci-lint := go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
govulncheck := go run golang.org/x/vuln/cmd/govulncheck@v1.9.0
cyclonedx-gomod := go run github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0
actionlint := go run github.com/rhysd/actionlint/cmd/actionlint@v1.7.12

# The version of Go that builds a release: the one that go.mod names, so that everyone who builds
# the same commit gets the same files.
toolchain := $(shell awk '$$1 == "toolchain" { print $$2 }' go.mod)

# What `make generate` writes.
generated := '*_templ.go' static/app.css models/schema clients/typescript/src/api.ts

demo:
	go run . demo

# The race detector covers all code except SQLite's own, which is C translated to Go and would take
# several times as long.
race := env CGO_ENABLED=1 go test -race -gcflags='modernc.org/sqlite/lib=-race=false'

# Long tests of models/enforcement without concurrency. `make test` runs them without the race
# detector.
alone := TestAgainstAModel|TestFinishSpendLimits|TestNoStatementReadsATableWhole|TestOrganizationSequences
alone := ^($(alone)|TestRowsReadAreBounded|TestTheGateOnPartitionedTables|TestTheLogIsBroughtHome)$$

# Tests of models/billing with concurrency. Only these run under the race detector; without it, all
# run.
together := TestALeaseIsRenewed|TestNoRequestOutlivesItsLease|TestManyEventsAtOnce
together := $(together)|TestAWebhookIsAnsweredWhenItIsApplied|TestTwoClicksAtATimeAreOnePurchase
together := $(together)|TestBalancesAtOnce|TestAnErasureWaitsForEventsThatAreApplied
together := $(together)|TestACreditNoteIsMadeOnce|TestVoidsAndSealingAtOnce
together := ^($(together)|TestAMetersListMayHang|TestLimiter)$$

# -parallel, because many tests wait for a timeout or a slow connection. -p 1, because two streams of
# tests run at the same time. -vet=off, because `make lint` has vet. -count=1, because go test's
# cache ignores the program that web/e2e builds and starts. -pgo=off, because with the profile,
# everything that the program imports is compiled a second time. -ldflags=-w, because linking without
# debug information takes a third less time.
tested := -vet=off -pgo=off -ldflags=-w -count=1 -p 1 -parallel 3 -timeout 16m

# Tests that fail if other programs keep the processor busy for seconds. They run last, alone.
quiet := ^TestSlowLink$$

# Each stream has half of the processors, except for web/e2e, which starts many processes. On some
# virtual machines, a process whose threads or children change processors takes up to a third more
# processor time; see docs/decisions.md. If make may not use all processors, both streams use all
# that it may use.
ifneq ($(shell command -v taskset),)
cores := $(shell nproc)
ifeq ($(filter-out 1,$(cores)),$(shell getconf _NPROCESSORS_ONLN))
lower := taskset -c 0-$(shell expr $(cores) / 2 - 1)
upper := taskset -c $(shell expr $(cores) / 2)-$(shell expr $(cores) - 1)
endif
endif

# Installs what the tests need if it is missing; see deps.
test: deps
	{ go test $(tested) ./web/e2e && $(lower) $(race) $(tested) -skip '$(alone)' ./models/enforcement && \
	$(lower) go test $(tested) -run '$(alone)' ./models/enforcement && \
	$(lower) $(race) $(tested) -run '$(together)' ./models/billing && \
	$(lower) go test $(tested) ./web/browsertest; } & beside=$$!; \
	$(upper) go test $(tested) -skip '$(quiet)' $$(go list ./... | grep -vE '/web/(e2e|browsertest)$$|/models/enforcement$$'); \
	rest=$$?; wait $$beside && test $$rest = 0 && go test $(tested) -run '$(quiet)' ./web

# Runs all tests under the race detector.
race: deps
	$(race) -timeout 20m ./...

# Prints the results and writes them to docs/benchmarks.md. Each ratio is measured within one run.
bench: deps
	go run ./web/bench

# Writes default.pgo, the CPU profile that the compiler uses to optimize the program: what the server
# does under the benchmark's load. An old profile still helps, so renew it only with large changes.
profile: deps
	dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && chmod 755 "$$dir" && \
	TMPDIR="$$dir" GOFLAGS=-tags=profile go run ./web/bench -only postgres,sqlite,consume,check,one-person,pages -events 100000 && \
	go tool pprof -proto "$$dir"/*.pprof >"$$dir"/merged && mv "$$dir"/merged default.pgo

# Runs the tests with PostgreSQL's own defaults. Otherwise, the databases of tests have hostile
# defaults.
plain: deps
	go test ./models ./models/enforcement ./models/billing ./web -count=1 -timeout 20m -args -plain

# Also writes the tables of docs/reliability.md. Those tests run first and alone, so that nothing
# disturbs what they measure.
soak: deps
	go test ./web/e2e -count=1 -timeout 60m -run '$(measured)' -args -soak=$(SOAK) -write-reliability
	go test ./web/e2e -count=1 -timeout 80m -skip '$(measured)' -args -soak=$(SOAK) -starts=50 -stops=20
	go test ./models/enforcement -count=1 -run TestRowsReadAreBounded -args -large
	go test ./models/billing -count=1 -timeout 6h -run 'TestSimulation' -args -schedules=$(SCHEDULES) -days=6

# Checks every state of every page, in every theme at every width. `make test` checks each page
# once, in one theme at one width.
browser: deps
	go test ./web/browsertest -count=1 -timeout 40m -args -all

# Takes the screenshots of the README.
screenshots: deps
	go test ./web/browsertest -count=1 -run TestScreenshots -args -shots=$(CURDIR)/docs/screenshots

# `go test -fuzz` runs one target of one package, so this lists the targets and runs each of them.
# It stops at the first failure. Commit the failed input, which is then in the package's testdata,
# with the fix.
fuzz: deps
	@listed=$$(go test -list '^Fuzz' ./...) || { echo "$$listed"; exit 1; }; \
	echo "$$listed" | \
	awk '/^Fuzz/ { name[++n] = $$1 } $$1 == "ok" { for (i = 1; i <= n; i++) print $$2, name[i]; n = 0 }' | \
	while read -r package name; do \
		echo "$$package $$name"; \
		go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$package" </dev/null || exit 1; \
	done

# Needs npm for the stylesheet and the types of the TypeScript client. Runs no scripts of npm
# packages.
generate:
	go tool templ generate
	npm ci --ignore-scripts --no-audit --no-fund
	npm run build
	go test ./models -run TestSchemaFiles -count=1 -args -update-schema
	go test ./web/browsertest -run TestGeneratedClient -count=1 -args -update-types

# Compares the generated files with the committed ones, including new ones.
verify: generate
	git diff --exit-code -- $(generated)
	@new=$$(git ls-files --others --exclude-standard -- $(generated)); \
	test -z "$$new" || { echo "generated but not committed:"; echo "$$new"; exit 1; }
	@$(MAKE) --no-print-directory lint
	$(actionlint)
	@$(MAKE) --no-print-directory vuln

# The linters include vet.
lint:
	.ci/words
	GOFLAGS=-pgo=off $(golangci-lint) run
	go vet -pgo=off -tags profile . ./web/cli

# Writes for each system a program and the list of its modules (an SBOM), and the checksums of all.
# The version is git's tag, or the commit; `tollgate version` prints it.
release: $(SYSTEMS:%=$(DIST)/tollgate-%)
	for system in $(SYSTEMS); do \
		$(cyclonedx-gomod) bin -json -std -noserial -notimestamp -output $(DIST)/tollgate-$$system.cdx.json $(DIST)/tollgate-$$system || exit 1; \
	done
	cd $(DIST) && sha256sum $(foreach system,$(SYSTEMS),tollgate-$(system) tollgate-$(system).cdx.json) >SHA256SUMS

$(DIST)/tollgate-%: FORCE
	GOTOOLCHAIN=$(toolchain) GOOS=$(word 1,$(subst -, ,$*)) GOARCH=$(word 2,$(subst -, ,$*)) \
		go build -trimpath -buildvcs=true -ldflags='-s -w' -o $@ .

# Builds the current commit twice, in new folders and without Go's cache, and compares the results.
# Both copies are made first, because someone may commit during the first build.
reproducible:
	dir=$$(mktemp -d) && trap 'chmod -R u+w "$$dir"; rm -rf "$$dir"' EXIT && \
	git clone --quiet --no-hardlinks . "$$dir/one" && git clone --quiet --no-hardlinks "$$dir/one" "$$dir/two/deeper" && \
	for copy in one two/deeper; do \
		GOCACHE="$$dir/cache-$${copy%/*}" $(MAKE) --no-print-directory -C "$$dir/$$copy" release DIST=dist SYSTEMS='$(SYSTEMS)' || exit 1; \
	done && \
	diff "$$dir/one/dist/SHA256SUMS" "$$dir/two/deeper/dist/SHA256SUMS" && cat "$$dir/one/dist/SHA256SUMS"

# Writes a container image for each of Linux's systems, for `docker load` or `podman load`. buildah
# needs no container engine and, since the image begins empty, no registry. Docker's format is the
# one that has a health check.
image: $(addprefix image-,$(filter linux-%,$(SYSTEMS)))

image-linux-%: $(DIST)/tollgate-linux-%
	mkdir -p $(DIST)/data
	buildah() { command buildah --storage-driver vfs --root $(abspath $(DIST))/image-$* --runroot $(abspath $(DIST))/image-$*/run "$$@"; }; \
	trap 'rm -rf $(DIST)/image-$*' EXIT; \
	rm -f $(DIST)/tollgate-image-$*.tar && \
	buildah build --isolation chroot --format docker --timestamp 0 --platform linux/$* --tag tollgate:latest \
		--file deploy/Containerfile $(DIST) && \
	buildah push tollgate:latest docker-archive:$(DIST)/tollgate-image-$*.tar:tollgate:latest

# Uses the toolchain that go.mod names, or the local one if it is newer. Set VULNDB to a copy of the
# database, such as file:///srv/vulndb, if vuln.go.dev is out of reach. The two exceptions and their
# reason are in web/vuln/main.go.
vuln:
	GOTOOLCHAIN=auto go run ./web/vuln $(govulncheck) -format json $(if $(VULNDB),-db $(VULNDB)) ./...

# The Debian packages that the tests and the benchmark need and that are missing: a C compiler with
# its headers for the race detector, the programs that the tests start themselves, and a browser
# with Node to control it.
lacking = $(strip \
	$(if $(shell echo 'int main(void) { return 0; }' | gcc -x c -o /dev/null - 2>/dev/null && echo yes),,gcc libc6-dev) \
	$(if $(shell command -v postgres || ls /usr/lib/postgresql/*/bin/postgres 2>/dev/null),,postgresql) \
	$(if $(shell command -v pgbouncer || ls /usr/sbin/pgbouncer 2>/dev/null),,pgbouncer) \
	$(if $(shell command -v redis-server),,redis-server) \
	$(if $(shell command -v chromium-headless-shell),,chromium-headless-shell) \
	$(if $(shell command -v node),,nodejs) \
	$(if $(shell command -v npm),,npm) \
	$(if $(shell command -v prometheus),,prometheus) \
	$(if $(shell command -v nginx || ls /usr/sbin/nginx 2>/dev/null),,nginx-light) \
	$(if $(shell command -v haproxy || ls /usr/sbin/haproxy 2>/dev/null),,haproxy) \
	$(if $(shell command -v caddy),,caddy) \
	$(if $(shell command -v buildah),,buildah) \
	$(if $(shell command -v systemd-analyze),,systemd))

# Debian starts a server when it installs it, on a port that may be in use. A policy-rc.d prevents
# this. An existing policy-rc.d is the owner's decision and stays.
define install
	policy=/usr/sbin/policy-rc.d
	if [ ! -e $$policy ]; then
		trap 'rm -f $$policy' EXIT
		trap 'exit 1' HUP INT TERM
		printf '#!/bin/sh\nexit 101\n' >$$policy
		chmod 755 $$policy
	fi
	export DEBIAN_FRONTEND=noninteractive
	apt-get -qq update
	apt-get -qq --yes --no-install-recommends -o Dpkg::Use-Pty=0 install "$$@" </dev/null
endef
export install

# Does nothing if everything is installed.
deps:
	@set -- $(lacking); \
	if [ $$# -eq 0 ]; then exit 0; fi; \
	echo "installing $$*"; \
	if [ "$$(id -u)" -eq 0 ]; then \
		sh -euc "$$install" sh "$$@" && exit 0; \
	elif command -v sudo >/dev/null; then \
		sudo sh -euc "$$install" sh "$$@" && exit 0; \
	fi; \
	echo "these packages could not be installed; as root, run: apt-get install $$*" >&2; \
	exit 1
