# The targets that README.md names. Everything needs Go 1.26 and nothing else,
# but e2e, which also uses Python (models, gguf reader) and Node (llama.cpp).
GO ?= go

.PHONY: all build demo test lint e2e bench clean
all: build

build:
	CGO_ENABLED=0 $(GO) build -trimpath -o graft ./cmd/graft

demo: build
	./graft demo --force demo

test:
	$(GO) test ./...

lint:
	.ci/lint

e2e: build
	.ci/e2e

bench:
	$(GO) run ./cmd/bench

clean:
	rm -rf graft demo
