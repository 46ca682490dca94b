# make demo   everything on this machine: set up, train, evaluate, quantize, evaluate int8, report
# make test   lint, types and all tests (as root it first installs Slurm and a browser for them)
# make test-fast  the quick tests alone, on all cores: what to run while working
# make soak   trainings killed with -9 at random points, 200 times (KILLS=1000 for more)
# make lint   ruff, mypy and the rooms' import contracts alone
# make bench  the benchmarks of tests/benchmarks

PYTHON ?= python3
VENV   ?= .venv
DEMO   ?= runs/demo
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

SYSTEM := $(VENV)/.system$(if $(SEGDIST_PBS_LAB),-pbs)

KILLS ?= 200

.PHONY: demo test test-fast soak lint bench clean-demo

# Installing takes 3 to 5 minutes and 7 GB, once; again only where pyproject.toml has changed.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v <= (3, 12) else \
	  "error: Python %d.%d: 3.10, 3.11 or 3.12 is needed; run make PYTHON=python3.11" % v)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

# Both nets at small sizes: 12 minutes on 2 cores. The scenes are 256x512; the nets see them at half of that.
DEMO_OPTIONS = --cluster local --data $(DEMO)/scenes --ranks-per-node 2 --wait --overwrite --workers 0 \
  --crop 128x256 --scale-min 0.45 --scale-max 0.65 --val-size 128x256 --class-balance 0.4 \
  --optimizer adamw --weight-decay 0.01 --batch 4 \
  --sizes 128x256 --tuning-size 128x256 --calibration-images 32 --accuracy-drop 0.01 --relative

demo: $(READY)
	$(BIN)/python -m segdist.data.scenes --out $(DEMO)/scenes --train 64 --val 16 --size 256x512 --seed 0
	$(BIN)/python -m jobs.submit pipeline --run $(DEMO)/unet --model unet --width 16 \
	  --epochs 20 --lr 0.008 $(DEMO_OPTIONS)
	$(BIN)/python -m jobs.submit pipeline --run $(DEMO)/hrnetv2_w18 --model hrnetv2_w18 \
	  --epochs 24 --lr 0.004 $(DEMO_OPTIONS)
	@grep -qE 'avx512_bf16|amx_bf16' /proc/cpuinfo || echo 'no bf16: this CPU has no instructions for it'
	for net in unet hrnetv2_w18; do ! grep -qE 'avx512_bf16|amx_bf16' /proc/cpuinfo || \
	  $(BIN)/python -m segdist.launch --ranks-per-node 2 evaluate --run $(DEMO)/$$net --name bf16 \
	  --eval-precision bf16 --data $(DEMO)/scenes --sizes 128x256 --overwrite || exit; done
	$(BIN)/python -m jobs.collect $(DEMO) --format html --out $(DEMO)/report.html
	$(BIN)/python -m jobs.collect $(DEMO)

clean-demo:
	rm -rf $(DEMO)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# A real Slurm, a browser, and what the PBS lab needs (where SEGDIST_PBS_LAB names one) for the tests that want one, where
# root may install them; else those tests are skipped.
$(SYSTEM): | $(READY)
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  command -v slurmctld >/dev/null && command -v chromium >/dev/null || \
	  { echo "installing slurmctld, slurmd, munge and chromium for the tests"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
	      slurmctld slurmd slurm-client munge iproute2 chromium >/dev/null; } || \
	  echo "not installed: the tests that want them are skipped"; \
	else echo "no root, or no apt-get: the tests that want Slurm or a browser are skipped unless they are there"; fi
	@if [ -n "$(SEGDIST_PBS_LAB)" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  dpkg -s $$(cat "$(SEGDIST_PBS_LAB)/openpbs.packages") >/dev/null 2>&1 || \
	  { echo "installing what the PBS lab in $(SEGDIST_PBS_LAB) needs"; apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
	      $$(cat "$(SEGDIST_PBS_LAB)/openpbs.packages") >/dev/null; } || \
	  echo "not installed: the tests that want a PBS server are skipped"; fi
	@touch $@

# What shares no machine-wide thing runs on two workers; a Slurm, killed trainings and a browser want it for themselves.
APART := cluster or faults or browser

test: lint $(SYSTEM)
	@code=0; \
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not ($(APART))' || code=$$?; \
	$(BIN)/python -m pytest -m '$(APART)' || code=$$?; \
	exit $$code

test-fast: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile -m 'not (slow or $(APART))'

soak: $(READY)
	SEGDIST_SOAK_KILLS=$(KILLS) $(BIN)/python -m pytest -q tests/faults

bench: $(READY)
	$(BIN)/python -m pytest -q -s tests/benchmarks/bench_*.py
