# make demo | test | lint | fix | docs | setup | env    (each sets up the environment if needed; `make -s env` prints its folder)
SETUP = env=$$(tools/setup_env.sh) && PATH="$$env/bin:$$PATH"

.PHONY: setup env demo test test-slow lint fix docs
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

lint:
	@$(SETUP) tools/lint.sh

fix:
	@$(SETUP) sh -c 'ruff check --fix . ; ruff format .'

docs:
	@$(SETUP) sphinx-build -W --keep-going -b html docs docs/_build/html
