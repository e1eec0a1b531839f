# Every target sets itself up: a .venv with the package in it. Bare `make` prints what there is.
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo corpus protocol extract import features search retrain compare audit tune probe words shares dynamics cost \
	export predict onnx check-space check-encoder board bench nano docs check test golden fast mutants coverage installed upgrade clean

# Variables come from the command line; the environment is not read. EXPERIMENT is a file that says what to do, SET changes
# single keys of it: `make compare EXPERIMENT=emodb.toml SET="layer=mix seeds=5"`. The keys: `.venv/bin/bas compare --help`.
PYTHON := python3
TORCH :=
EXPERIMENT :=
SET :=
SPACE :=
ENCODER :=
TO :=
RUN :=
ROW :=
MODEL :=
SOURCES :=
CLUSTER :=
PROCESSES := 1
PORT := 6006
ALL :=
SPEECH :=
TEACHER :=
REAL_LENGTH :=
STEPS :=
DEVICE :=
BIN := .venv/bin

# What each target reads of them; with anything else on the command line nothing runs.
environment := PYTHON TORCH
experiment := $(environment) EXPERIMENT SET
verbs := search retrain compare audit tune probe words shares dynamics cost
$(foreach target,$(verbs),$(eval reads_$(target) := $(experiment)))
shared := search retrain compare audit tune
$(foreach target,$(shared),$(eval reads_$(target) += CLUSTER))
reads_help :=
reads_setup := $(environment)
reads_demo := $(environment)
reads_corpus := $(experiment) TO
reads_protocol := $(experiment) TO
reads_extract := $(experiment) PROCESSES
reads_import := $(experiment)
reads_features := $(environment) EXPERIMENT
reads_export := $(environment) RUN ROW TO
reads_predict := $(environment) MODEL SOURCES TO ENCODER
reads_onnx := $(environment) MODEL TO
reads_check-space := $(environment) SPACE
reads_check-encoder := $(environment) ENCODER
reads_board := $(environment) PORT ALL
reads_bench := $(environment) DEVICE
reads_nano := $(environment) SPEECH TEACHER REAL_LENGTH STEPS
reads_docs := $(environment)
reads_check := $(environment)
reads_test := $(environment)
reads_golden := $(environment)
reads_fast := $(environment)
reads_mutants := $(environment)
reads_coverage := $(environment)
reads_installed := $(environment)
reads_upgrade := PYTHON
reads_clean :=

# What a target stops without, before it installs anything. What an experiment lacks, `bas` says.
needs_features := EXPERIMENT
needs_nano := SPEECH
needs_check-space := SPACE
needs_check-encoder := ENCODER
needs_export := RUN
needs_predict := MODEL SOURCES
needs_onnx := MODEL
$(foreach target,$(verbs) extract import corpus protocol,$(eval needs_$(target) := $(if $(SET),,EXPERIMENT)))
like_EXPERIMENT := emodb.toml
like_SPACE := my_space.py
like_ENCODER := my_encoder.py
like_RUN := runs/demo
like_MODEL := my-model
like_SOURCES := recording.wav
like_SPEECH := path/to/LibriSpeech

# Of what is not a target make itself says so.
goals := $(foreach g,$(or $(MAKECMDGOALS),help),$(if $(filter undefined,$(origin reads_$(g))),,$(g)))
given := $(foreach v,$(.VARIABLES),$(if $(filter command,$(origin $(v))),$(v)))
read := $(sort $(foreach g,$(goals),$(reads_$(g))))
unread := $(sort $(filter-out $(read),$(given)))
missing := $(sort $(foreach g,$(goals),$(foreach v,$(needs_$(g)),$(if $($(v)),,$(v)))))
ifneq ($(goals),)
ifneq ($(unread),)
$(error make $(goals): does not read $(unread); it reads: $(or $(read),nothing)$(if $(filter SET,$(read)),; one \
	setting of a training is SET="epochs=30"))
endif
ifneq ($(missing),)
$(error make $(goals): needs $(missing); for example $(foreach v,$(missing),$(v)=$(like_$(v))))
endif
endif
ifeq ($(PYTHON),)
$(error PYTHON is empty; for example PYTHON=python3.12)
endif
ifneq ($(filter-out 0 1,$(REAL_LENGTH) $(ALL)),)
$(error REAL_LENGTH=$(REAL_LENGTH) ALL=$(ALL): must be 1 or 0)
endif
ifneq ($(filter-out slurm local,$(CLUSTER)),)
$(error CLUSTER=$(CLUSTER): must be slurm or local)
endif
ifneq ($(shell case "$(PROCESSES)" in (''|0*|*[!0-9]*) echo no;; esac),)
$(error PROCESSES=$(PROCESSES): must be a number, 1 or more)
endif

help:  ## this page
	@echo "bas: which downstream model should sit on frozen speech features?"
	@echo
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r target text; do \
		printf '  make %-12s %s\n' "$$target" "$${text%% | *}"; \
		case "$$text" in *" | "*) printf '                     %s\n' "$${text##* | }";; esac; done

setup: .venv/run  ## install the package into .venv; later targets keep TORCH and PYTHON | make setup TORCH=cpu PYTHON=python3.12

demo: .venv/demo  ## the main job on synthetic speech, no data needed, about 3 minutes | make demo
	$(BIN)/bas demo

READ = $(if $(EXPERIMENT),"$(EXPERIMENT)") $(SET:%=--set '%')
SHARED = $(READ) $(if $(CLUSTER),--cluster "$(CLUSTER)")
$(shared): $(if $(CLUSTER),.venv/slurm)

corpus: .venv/run  ## what a corpus holds and what is missing; with TO, write it as a table | make corpus SET="corpus.reader=emodb corpus.root=~/emodb" TO=emodb.csv
	$(BIN)/bas corpus $(if $(TO),export,show) $(READ) $(if $(TO),--to "$(TO)")

protocol: .venv/run  ## split a corpus, show the split and write it down | make protocol EXPERIMENT=emodb.toml SET="protocol.rule=speaker:64/20/16"
	$(BIN)/bas protocol make $(READ) $(if $(TO),--to "$(TO)")

extract: .venv/run  ## a frozen encoder over a corpus, into HDF5 shards | make extract EXPERIMENT=emodb.toml
	$(if $(filter-out 1,$(PROCESSES)),OMP_NUM_THREADS=1 $(BIN)/torchrun --standalone --nproc-per-node $(PROCESSES) -m bas,$(BIN)/bas) extract $(READ)

import: .venv/run  ## features that another program made, as a store | make import EXPERIMENT=emodb.toml SET="encoder.source=arrays encoder.frame_rate=50"
	$(BIN)/bas features import $(READ)

features: .venv/run  ## what an experiment's feature store is, and whether it is whole | make features EXPERIMENT=emodb.toml
	-$(BIN)/bas features info "$(EXPERIMENT)"
	$(BIN)/bas features verify "$(EXPERIMENT)"

search: .venv/run  ## search the spaces in every fold | make search EXPERIMENT=emodb.toml SET="spaces=ser_bas4"
	$(BIN)/bas search $(SHARED)

retrain: .venv/run  ## search, then train what was chosen and score it | make retrain EXPERIMENT=emodb.toml SET="layer=best"
	$(BIN)/bas retrain $(SHARED)

compare: .venv/run  ## search, retrain, baselines: the table | make compare EXPERIMENT=emodb.toml SET="preset=paper epochs=50" CLUSTER=slurm
	$(BIN)/bas compare $(SHARED)

audit: .venv/run  ## every architecture trained: did the search work, did the choice matter? | make audit EXPERIMENT=emodb.toml SET="audit.strategies=gumbel,bilevel"
	$(BIN)/bas audit $(SHARED)

tune: .venv/run  ## Optuna over blocks and settings: an independent baseline for the search | make tune EXPERIMENT=emodb.toml SET="tune.trials=100"
	$(BIN)/bas tune $(SHARED)

probe: .venv/run  ## which layer: every hidden state and their mixes, probed | make probe EXPERIMENT=emodb.toml SET="probe.percents=10,30"
	$(BIN)/bas probe $(READ)

words: .venv/run  ## word means against raw frames and controls, alone and with text | make words EXPERIMENT=emodb.toml SET="words.text_encoder=bert-base-german-cased"
	$(BIN)/bas words $(READ)

shares: .venv/dynamics  ## how many listeners heard each emotion: encoder x attention, and what attention looks at | make shares EXPERIMENT=hume.toml SET="shares.metadata=sex"
	$(BIN)/bas shares $(READ)

dynamics: .venv/dynamics  ## fine-tune an encoder and watch its embeddings | make dynamics EXPERIMENT=emodb.toml SET="preset=paper"
	$(BIN)/bas dynamics $(READ)

cost: .venv/run  ## the same models under a leaky and a clean split: what is a leak worth? | make cost EXPERIMENT=emodb.toml SET="cost.clean=speaker:5 cost.leaky=id:5"
	$(BIN)/bas protocol cost $(READ)

export: .venv/run  ## a row of a comparison, fitted on all that its folds train on, as a model that predicts | make export RUN=runs/demo ROW="simple FFN" TO=my-model
	$(BIN)/bas export "$(RUN)" $(if $(ROW),--row "$(ROW)") $(if $(TO),--into "$(TO)")

predict: .venv/run  ## what a model says of recordings, folders of them and manifests | make predict MODEL=my-model SOURCES="a.wav folder" TO=said.csv
	$(BIN)/bas predict "$(MODEL)" $(SOURCES) $(if $(TO),--out "$(TO)") $(if $(ENCODER),--encoder "$(ENCODER)")

onnx: .venv/onnx  ## a model as an ONNX graph, for runtimes without Python | make onnx MODEL=my-model TO=my-model.onnx
	$(BIN)/bas onnx "$(MODEL)" $(if $(TO),--out "$(TO)")

check-space: .venv/run  ## hold a search-space file to its contracts | make check-space SPACE=my_space.py
	$(BIN)/bas check-space "$(SPACE)"

check-encoder: .venv/run  ## hold the file of an encoder of your own to its contracts | make check-encoder ENCODER=my_encoder.py
	$(BIN)/bas check-encoder "$(ENCODER)"

board: .venv/run  ## TensorBoard over all runs | make board PORT=6007 ALL=1
	$(BIN)/bas board --port $(PORT) $(if $(filter-out 0,$(ALL)),--all)

bench: .venv/run  ## how fast features are extracted and read, and what steps of trainings cost: benchmarks/{features,steps}.md | make bench DEVICE=cuda
	$(BIN)/python benchmarks/steps.py $(if $(DEVICE),--device "$(DEVICE)")
	$(BIN)/python benchmarks/features.py $(if $(DEVICE),--device "$(DEVICE)")

nano: .venv/nano  ## train bas-hubert-nano again, an hour and a half on two cores | make nano SPEECH=path/to/LibriSpeech TEACHER=openai/whisper-tiny.en REAL_LENGTH=1
	$(BIN)/python tools/nano/recipe.py --speech "$(SPEECH)" $(if $(TEACHER),--teacher "$(TEACHER)") \
		$(if $(filter-out 0,$(REAL_LENGTH)),--real-length) $(if $(STEPS),--steps $(STEPS))

docs: .venv/test  ## the documentation, and its reference from the code: build/docs/index.html | make docs
	$(BIN)/sphinx-build -q -W --keep-going -b html docs build/docs

check: docs  ## ruff, mypy, import contracts, the documentation | make check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check  ## the checks and all tests | make test
	$(BIN)/pytest -n 2 --dist loadfile --durations 40

golden: .venv/test  ## rewrite tests/golden/numbers.txt: every verb's numbers on a tiny corpus | make golden
	$(BIN)/python tests/golden/verbs.py > tests/golden/numbers.new
	mv tests/golden/numbers.new tests/golden/numbers.txt

fast: check  ## the checks, and the tests that take no time | make fast
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow"

coverage: .venv/test  ## all tests, and the lines they reach, not below a floor; half as long again | make coverage
	$(BIN)/pytest -n 2 --dist loadfile --cov

mutants: .venv/test  ## plant faults in copies of the code: a test must notice each; a quarter of an hour | make mutants
	$(BIN)/python tests/helpers/planting.py

installed: python-runs  ## build the wheel, install it in an empty environment elsewhere and run its demo there | make installed PYTHON=python3.13
	@$(PYTHON) tools/environment.py installed $(BUILD)

upgrade: python-runs  ## rewrite constraints.txt from the newest versions; then make test | make upgrade PYTHON=python3.11
	@$(PYTHON) tools/environment.py upgrade

clean:  ## delete the environment; runs/ stays | make clean
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build *.egg-info

# One a kind of installation. Each looks every time whether .venv is as constraints.txt says, and mends it where not.
BUILD = $(if $(filter command,$(origin TORCH)),--torch "$(TORCH)")
.PHONY: .venv/run .venv/demo .venv/dynamics .venv/nano .venv/onnx .venv/slurm .venv/test python-runs
python-runs:
	@$(PYTHON) -c "" >/dev/null 2>&1 || \
		{ echo "make: PYTHON=$(PYTHON) does not run; name Python 3.11, 3.12 or 3.13, such as PYTHON=python3.12" >&2; exit 2; }
.venv/run .venv/demo .venv/dynamics .venv/nano .venv/onnx .venv/slurm .venv/test: python-runs
	@$(PYTHON) tools/environment.py install $(@F) $(BUILD) $(if $(filter command,$(origin PYTHON)),--this-python)
