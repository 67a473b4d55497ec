# make demo | test | test-slow | test-forks | campaign | kills | lint | fix | docs | setup | env    (each sets up the environment if needed; `make -s env` prints its folder)
SETUP = env=$$(tools/setup_env.sh) && PATH="$$env/bin:$$PATH"

FORKS = tests/segmentation tests/engine tests/test_configs.py tests/tools/test_own_data_kinds.py

.PHONY: setup env demo test test-slow test-forks campaign kills lint fix docs
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
