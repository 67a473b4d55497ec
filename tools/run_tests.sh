#!/usr/bin/env bash
# Runs the test suite in two parallel processes with one thread each: the commands (tests/tools, tests/experiments) and
# all other tests. With arguments, runs plain pytest.
set -u
[ $# -gt 0 ] && exec python -m pytest "$@"
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
log=$(mktemp)
trap 'rm -f "$log"' EXIT
python -m pytest tests/tools tests/experiments >"$log" 2>&1 &
commands=$!
python -m pytest --ignore=tests/tools --ignore=tests/experiments
rest=$?
echo "tests/tools and tests/experiments:"
wait $commands
status=$?
cat "$log"
[ $rest -eq 0 ] && [ $status -eq 0 ]
