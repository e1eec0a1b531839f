# Every target sets itself up: a .venv with the package in it. Bare `make` prints what there is.
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo corpus protocol extract features search retrain compare audit tune probe words shares dynamics cost \
	check-space board bench nano check test golden installed upgrade clean

# Variables come from the command line; the environment is not read. What one means: `.venv/bin/bas compare --help`.
PYTHON := python3
TORCH :=
CORPUS :=
ROOT :=
ENCODER :=
REVISION :=
LAYERS := all
DTYPE := float16
PRECISION := float32
REAL_LENGTH :=
LONGEST :=
BATCH_SECONDS :=
PAD_AUDIO :=
PROCESSES := 1
FEATURES :=
LAYER :=
SPACES :=
SPACE :=
PRESET := cpu
SET :=
SEEDS :=
PROTOCOL :=
PROTOCOL_SEED := 0
ALLOW_OVERLAP :=
STRATEGIES :=
VARIANTS :=
TRIALS :=
PERCENTS := 10 30
ROTATIONS :=
AS_RECORDED :=
TEXT_ENCODER :=
ALIGNER :=
WORD :=
KEEP_WEIGHTS :=
METADATA :=
TUNE := blocks
CLEAN :=
LEAKY :=
LABELS :=
TO :=
WORKERS :=
MEMORY :=
DEVICE := auto
NAME :=
PORT := 6006
SPEECH :=
TEACHER :=
STEPS :=
BIN := .venv/bin

# What each target reads of them; with anything else on the command line nothing runs.
environment := PYTHON TORCH
corpus_of := CORPUS ROOT LABELS
split_by := PROTOCOL PROTOCOL_SEED ALLOW_OVERLAP
trained := FEATURES SPACES PRESET SET SEEDS DEVICE LABELS WORKERS MEMORY NAME
reads_help :=
reads_setup := $(environment)
reads_demo := $(environment) WORKERS
reads_corpus := $(environment) $(corpus_of) TO
reads_protocol := $(environment) $(corpus_of) $(split_by) TO
reads_extract := $(environment) CORPUS ROOT ENCODER REVISION LAYERS DTYPE PRECISION REAL_LENGTH LONGEST BATCH_SECONDS \
	PAD_AUDIO PROCESSES DEVICE FEATURES
reads_features := $(environment) FEATURES
reads_search := $(environment) $(trained) $(split_by) LAYER
reads_retrain := $(reads_search)
reads_compare := $(reads_search)
reads_audit := $(reads_search) STRATEGIES VARIANTS
reads_tune := $(reads_search) TUNE TRIALS
reads_probe := $(environment) $(trained) $(split_by) PERCENTS
reads_words := $(environment) $(trained) $(split_by) TEXT_ENCODER ALIGNER WORD
reads_shares := $(reads_search) METADATA
reads_dynamics := $(environment) $(corpus_of) ENCODER REVISION REAL_LENGTH AS_RECORDED PROTOCOL PROTOCOL_SEED ROTATIONS \
	PRESET SET DEVICE KEEP_WEIGHTS TEXT_ENCODER NAME
reads_cost := $(environment) $(trained) LAYER CLEAN LEAKY
reads_check-space := $(environment) SPACE
reads_board := $(environment) PORT
reads_bench := $(environment) CORPUS ROOT ENCODER DEVICE
reads_nano := $(environment) SPEECH TEACHER REAL_LENGTH STEPS WORKERS DEVICE
reads_check := $(environment)
reads_test := $(environment)
reads_golden := $(environment)
reads_installed := $(environment)
reads_upgrade := PYTHON
reads_clean :=

# What a target stops without, before it installs anything.
needs_corpus := CORPUS ROOT
needs_protocol := CORPUS ROOT
needs_extract := CORPUS ROOT ENCODER
needs_features := FEATURES
needs_search := FEATURES
needs_retrain := FEATURES
needs_compare := FEATURES
needs_audit := FEATURES
needs_tune := FEATURES
needs_probe := FEATURES
needs_words := FEATURES TEXT_ENCODER
needs_shares := FEATURES
needs_dynamics := CORPUS ROOT ENCODER
needs_cost := FEATURES
needs_nano := SPEECH
needs_check-space := SPACE
like_CORPUS := emodb
like_ROOT := path/to/corpus
like_ENCODER := bas-hubert-nano
like_FEATURES := runs/features/emodb-wavlm-large
like_TEXT_ENCODER := bert-base-german-cased
like_SPACE := my_space.py
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
ifneq ($(filter-out 0 1,$(REAL_LENGTH)),)
$(error REAL_LENGTH=$(REAL_LENGTH): must be 1 or 0)
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

demo: .venv/demo  ## the main job on synthetic speech, no data needed, about 4 minutes | make demo WORKERS=2
	$(BIN)/bas demo $(if $(WORKERS),--workers $(WORKERS))

CORPUS_ROOT = --corpus "$(CORPUS)" --root "$(ROOT)" $(if $(LABELS),--labels $(LABELS))
SPLIT = $(if $(PROTOCOL),--protocol "$(PROTOCOL)") --protocol-seed $(PROTOCOL_SEED) $(ALLOW_OVERLAP:%=--allow-overlap %)

corpus: .venv/run  ## what a corpus holds and what is missing; with TO, write it as a table | make corpus CORPUS=emodb ROOT=~/emodb TO=emodb.csv
	$(BIN)/bas corpus $(if $(TO),export $(CORPUS_ROOT) --to "$(TO)",show $(CORPUS_ROOT))

protocol: .venv/run  ## split a corpus, show the split and write it down | make protocol CORPUS=emodb ROOT=~/emodb PROTOCOL=speaker:64/20/16
	$(BIN)/bas protocol make $(CORPUS_ROOT) $(SPLIT) $(if $(TO),--to "$(TO)")

extract: .venv/run  ## a frozen encoder over a corpus, into HDF5 shards | make extract CORPUS=emodb ROOT=~/emodb ENCODER=microsoft/wavlm-large
	$(if $(filter-out 1,$(PROCESSES)),OMP_NUM_THREADS=1 $(BIN)/torchrun --standalone --nproc-per-node $(PROCESSES) -m bas,$(BIN)/bas) extract \
		--corpus "$(CORPUS)" --root "$(ROOT)" --encoder "$(ENCODER)" --layers "$(LAYERS)" --dtype $(DTYPE) \
		--precision $(PRECISION) --device $(DEVICE) $(if $(filter-out 0,$(REAL_LENGTH)),--real-length) \
		$(if $(LONGEST),--longest $(LONGEST)) $(if $(BATCH_SECONDS),--batch-seconds $(BATCH_SECONDS)) $(if $(PAD_AUDIO),--pad-audio $(PAD_AUDIO)) \
		$(if $(REVISION),--revision "$(REVISION)") $(if $(FEATURES),--features "$(FEATURES)")

features: .venv/run  ## what a feature store is, and whether it is whole | make features FEATURES=runs/features/emodb-wavlm-large
	-$(BIN)/bas features info "$(FEATURES)"
	$(BIN)/bas features verify "$(FEATURES)"

RUN = --features "$(FEATURES)" $(if $(LAYER),--layer $(LAYER)) $(SPACES:%=--space "%") --preset $(PRESET) $(SET:%=--set %) \
	$(if $(SEEDS),--seeds $(SEEDS)) --device $(DEVICE) $(if $(LABELS),--labels $(LABELS)) $(if $(WORKERS),--workers $(WORKERS)) \
	$(if $(MEMORY),--memory $(MEMORY)) $(if $(NAME),--name "$(NAME)")

search: .venv/run  ## search the spaces in every fold | make search FEATURES=runs/features/emodb-wavlm-large SPACES=ser_bas4
	$(BIN)/bas search $(RUN) $(SPLIT)

retrain: .venv/run  ## search, then train what was found and score it | make retrain FEATURES=runs/features/emodb-wavlm-large LAYER=best
	$(BIN)/bas retrain $(RUN) $(SPLIT)

compare: .venv/run  ## search, retrain, baselines: the table | make compare FEATURES=runs/features/emodb-wavlm-large PRESET=paper SET="epochs=50"
	$(BIN)/bas compare $(RUN) $(SPLIT)

audit: .venv/run  ## every architecture trained: did the search work, did the choice matter? | make audit FEATURES=runs/features/emodb-wavlm-large STRATEGIES="gumbel bilevel"
	$(BIN)/bas audit $(RUN) $(SPLIT) $(STRATEGIES:%=--strategy "%") $(VARIANTS:%=--variant "%")

tune: .venv/run  ## Optuna over blocks and settings: an independent baseline for the search | make tune FEATURES=runs/features/emodb-wavlm-large SPACES=ser_bas4 TRIALS=100
	$(BIN)/bas tune $(RUN) $(SPLIT) --tune $(TUNE) $(if $(TRIALS),--trials $(TRIALS))

probe: .venv/run  ## which layer: every hidden state and their mixes, probed | make probe FEATURES="runs/features/emodb-wavlm-large runs/features/emodb-hubert-base"
	$(BIN)/bas probe $(subst --features "$(FEATURES)",--features $(FEATURES),$(RUN)) $(SPLIT) --percent $(PERCENTS)

words: .venv/run  ## word means against raw frames and controls, alone and with text | make words FEATURES=runs/features/emodb-wavlm-large TEXT_ENCODER=bert-base-german-cased
	$(BIN)/bas words $(subst --features "$(FEATURES)",--features $(FEATURES),$(RUN)) $(SPLIT) --text-encoder "$(TEXT_ENCODER)" \
		$(if $(ALIGNER),--aligner "$(ALIGNER)") $(WORD:%=--word "%")

shares: .venv/dynamics  ## how many listeners heard each emotion: encoder x attention, and what attention looks at | make shares FEATURES="runs/features/emodb-wavlm-large runs/features/emodb-hubert-base" METADATA=sex
	$(BIN)/bas shares $(subst --features "$(FEATURES)",--features $(FEATURES),$(RUN)) $(SPLIT) $(if $(METADATA),--metadata $(METADATA))

dynamics: .venv/dynamics  ## fine-tune an encoder and watch its embeddings | make dynamics CORPUS=emodb ROOT=~/emodb ENCODER=microsoft/wavlm-large PRESET=paper
	$(BIN)/bas dynamics $(CORPUS_ROOT) --encoder "$(ENCODER)" $(if $(REVISION),--revision "$(REVISION)") \
		$(if $(filter-out 0,$(REAL_LENGTH)),--real-length) $(if $(filter-out 0,$(AS_RECORDED)),--as-recorded) \
		$(if $(PROTOCOL),--protocol "$(PROTOCOL)") --protocol-seed $(PROTOCOL_SEED) $(if $(ROTATIONS),--rotations $(ROTATIONS)) \
		--preset $(PRESET) $(SET:%=--set %) --device $(DEVICE) $(if $(filter-out 0,$(KEEP_WEIGHTS)),--keep-weights) \
		$(if $(TEXT_ENCODER),--text-encoder "$(TEXT_ENCODER)") \
		$(if $(NAME),--name "$(NAME)")

cost: .venv/run  ## the same models under a leaky and a clean split: what is a leak worth? | make cost FEATURES=runs/features/emodb-wavlm-large CLEAN=speaker:5 LEAKY=id:5
	$(BIN)/bas protocol cost $(RUN) $(if $(CLEAN),--clean "$(CLEAN)") $(if $(LEAKY),--leaky "$(LEAKY)")

check-space: .venv/run  ## hold a search-space file to its contracts | make check-space SPACE=my_space.py
	$(BIN)/bas check-space "$(SPACE)"

board: .venv/run  ## TensorBoard over all runs | make board PORT=6007
	$(BIN)/bas board --port $(PORT)

bench: .venv/run  ## how fast features are extracted and read: benchmarks/features.md | make bench CORPUS=emodb ROOT=~/emodb ENCODER=openai/whisper-tiny.en
	$(BIN)/python benchmarks/features.py $(if $(CORPUS),--corpus "$(CORPUS)" --root "$(ROOT)") $(if $(ENCODER),--whisper "$(ENCODER)") \
		$(if $(filter-out auto,$(DEVICE)),--device $(DEVICE))

nano: .venv/nano  ## train bas-hubert-nano anew, an hour and a half on two cores | make nano SPEECH=path/to/LibriSpeech TEACHER=openai/whisper-tiny.en REAL_LENGTH=1
	$(BIN)/python tools/nano/recipe.py --speech "$(SPEECH)" $(if $(TEACHER),--teacher "$(TEACHER)") --device $(DEVICE) \
		$(if $(filter-out 0,$(REAL_LENGTH)),--real-length) $(if $(STEPS),--steps $(STEPS)) $(if $(WORKERS),--workers $(WORKERS))

check: .venv/test  ## ruff, mypy, import contracts | make check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check  ## the checks and all tests | make test
	$(BIN)/pytest -n 2 --dist loadfile

golden: .venv/test  ## tests/golden/numbers.txt anew: every verb's numbers on a tiny corpus | make golden
	$(BIN)/python tests/golden/verbs.py > tests/golden/numbers.new
	mv tests/golden/numbers.new tests/golden/numbers.txt

installed: python-runs  ## build the wheel, install it in an empty environment elsewhere and run its demo there | make installed PYTHON=python3.13
	@$(PYTHON) tools/environment.py installed $(BUILD)

upgrade: python-runs  ## constraints.txt anew, from the newest versions; then make test | make upgrade PYTHON=python3.11
	@$(PYTHON) tools/environment.py upgrade

clean:  ## delete the environment; runs/ stays | make clean
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build *.egg-info

# One a kind of installation. Each looks every time whether .venv is as constraints.txt says, and mends it where not.
BUILD = $(if $(filter command,$(origin TORCH)),--torch "$(TORCH)")
.PHONY: .venv/run .venv/demo .venv/dynamics .venv/nano .venv/test python-runs
python-runs:
	@$(PYTHON) -c "" >/dev/null 2>&1 || \
		{ echo "make: PYTHON=$(PYTHON) does not run; name Python 3.11, 3.12 or 3.13, such as PYTHON=python3.12" >&2; exit 2; }
.venv/run .venv/demo .venv/dynamics .venv/nano .venv/test: python-runs
	@$(PYTHON) tools/environment.py install $(@F) $(BUILD) $(if $(filter command,$(origin PYTHON)),--this-python)
