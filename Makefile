# The targets that README.md names. Everything needs Go 1.26 and nothing else,
# but e2e, which also uses Python (models, gguf reader) and Node (llama.cpp).
GO ?= go

.PHONY: all build demo test lint e2e bench bench-train bench-peft bench-stream bench-quant bench-merge bench-survival llama-tools same-files clean
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

# Whole training steps on two real models: the share of the machine's peak, and where the
# time goes. ../shared/get-models fetches the models. Where bench-peft has been run, it is run again.
MODELS ?= $(HOME)/.cache/graft-models/SmolLM2-135M-Instruct.Q4_1.gguf $(HOME)/.cache/graft-models/gemma-3-270m-q4_k_m.gguf
PEFT = $(or $(GRAFT_BENCH),$(HOME)/.cache/graft-bench)/peft/bin/python
bench-train: build
	for m in $(MODELS); do $(GO) run ./cmd/bench -run train -model $$m || exit 1; done
	if [ -x $(PEFT) ]; then .ci/bench-peft; fi

# The same beside PEFT, whose packages are installed from PyPI (6 GB) the first time.
bench-peft: build
	.ci/bench-peft

# A step on 8 billion parameters that stay on disk: 4.5 GB in the temporary folder, for a
# minute or two.
bench-stream:
	$(GO) run ./cmd/bench -run stream

# Each file type from 1.1 billion parameters of F16. LLAMA_QUANTIZE=/path/to/llama-quantize
# runs that in turn and prints the ratio (make llama-tools builds one); LAYERS=2 makes a
# smaller file, TYPES=Q4_K_M,IQ3_S some types only.
LAYERS ?= 22
TYPES ?=
bench-quant:
	$(GO) run ./cmd/bench -run quant -quant-layers $(LAYERS) $(if $(TYPES),-quant-types $(TYPES))

# Merging 1.1 billion parameters: into F16 beside cp, and into Q4_K_M beside quantizing it.
# LLAMA_EXPORT_LORA and LLAMA_QUANTIZE name tools of llama.cpp to run in turn.
bench-merge:
	$(GO) run ./cmd/bench -run merge,fit -quant-layers 22

# The tools of llama.cpp, to compare with; from a package on PyPI, outside the project.
llama-tools:
	.ci/llama-tools

# Whole files against those of llama-quantize, byte for byte.
same-files: build
	.ci/same-files

# What is left of an adapter after a merge, for every type and method: real models and
# adapters that it trains first. An hour and more; it goes on where it was interrupted.
bench-survival:
	$(GO) run ./cmd/bench -run survival-table

clean:
	rm -rf graft demo
