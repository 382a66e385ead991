.DEFAULT_GOAL := help
.PHONY: help demo run test e2e torture bench lint fuzz build

FUZZTIME ?= 30s

help: ## What there is to make
	@awk -F':.*## ' '/^[a-z0-9]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## The program, bin/edgerelay
	@go build -o bin/edgerelay ./cmd/edgerelay

demo: build ## The main job on real input, before your eyes
	@bin/edgerelay demo

run: build ## A node on http://127.0.0.1:8080 with its data in ./data
	@bin/edgerelay serve

test: ## Everything that needs only Go
	go vet ./...
	go test ./...

e2e: ## The guide's samples and curl lines, published libraries, kill -9 (needs node and Python)
	testdata/receivers/install
	go test -tags e2e -count=1 -run "Samples|Guide" ./cmd/edgerelay

torture: ## Crashes, power cuts and kill -9, for long
	go test -count=1 -timeout 60m -run 'Crash|PowerCut' ./cluster ./relay/replica -crash.rounds 500
	go test -tags e2e -count=1 -timeout 60m -run Kill ./cmd/edgerelay -kill.rounds 50

bench: build ## This build on this machine: accepted, delivered, latency, against the bare limit
	@bin/edgerelay bench $(BENCHFLAGS)

lint: ## gofmt, vet, staticcheck
	@test -z "$$(gofmt -l . | tee /dev/stderr)"
	go vet -tags e2e ./...
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 -tags e2e ./...

fuzz: ## Each fuzz target for FUZZTIME (30s)
	@grep -rl --include='*_test.go' '^func Fuzz' . | while read -r file; do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9]*\).*/\1/p' $$file); do \
			go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) ./$$(dirname $$file) || exit 1; \
		done; \
	done
