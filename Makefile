# make demo | test | test-slow | test-forks | campaign | kills | lint | fix | docs | release | release-full | locks | setup | env    (each sets up the environment if needed; `make -s env` prints its folder)
SETUP = env=$$(tools/setup_env.sh) && PATH="$$env/bin:$$PATH"

FORKS = tests/segmentation tests/engine tests/test_configs.py tests/tools/test_own_data_kinds.py

RELEASE = tools=$$(tools/release_env.sh) && PYTHONPATH="tools:tests$${PYTHONPATH:+:$$PYTHONPATH}"

.PHONY: setup env demo test test-slow test-forks campaign kills lint fix docs release release-full locks
setup:
	@$(SETUP) rass-mm doctor

env:
	@tools/setup_env.sh

demo:
	@$(SETUP) rass-mm demo --out demo_out

test:
	@$(SETUP) tools/run_tests.sh $(ARGS)

test-slow:
	@$(SETUP) python -m pytest -m slow $(ARGS)

test-forks:  # segmentation with the maintained forks of the OpenMMLab packages, in an environment of their own
	@RASS_MM_FAMILY=onedl; export RASS_MM_FAMILY; $(SETUP) python -m pytest $(or $(ARGS),$(FORKS))

campaign:  # all malicious and damaged inputs at all doors; resumes where it was stopped
	@$(SETUP) python tests/campaign/run.py --out campaign_out $(ARGS)

kills:  # kills of running commands at random moments
	@$(SETUP) python tests/campaign/kills.py --out campaign_out $(ARGS)

lint:
	@$(SETUP) tools/lint.sh

fix:
	@$(SETUP) sh -c 'ruff check --fix . ; ruff format .'

docs:
	@$(SETUP) sphinx-build -W --keep-going -b html docs docs/_build/html

release:  # packages in dist/, checked and installed; ARGS="--torch torch==2.11.0+cpu" chooses a build of torch
	@$(SETUP) && $(RELEASE) python -m release --tools "$$tools" $(ARGS)

release-full:  # also installs the lock files and the oldest versions; compiles mmcv
	@$(SETUP) && $(RELEASE) python -m release --tools "$$tools" --full $(ARGS)

locks:  # the lock files of the development environment's versions, with hashes
	@$(SETUP) && $(RELEASE) python -m release.locks "$$tools"
