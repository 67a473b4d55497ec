#!/usr/bin/env bash
# Runs the test suite in two parallel processes with one thread each. The second one runs the folders below, which take
# as long as all others. With arguments, runs plain pytest.
set -u
[ $# -gt 0 ] && exec python -m pytest "$@"
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
second=(tests/tools tests/experiments tests/analysis tests/restoration tests/rass_mm_cli tests/jobs)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
python -m pytest "${second[@]}" >"$log" 2>&1 &
other=$!
python -m pytest "${second[@]/#/--ignore=}"
first=$?
echo "${second[*]}:"
wait $other
status=$?
cat "$log"
[ $first -eq 0 ] && [ $status -eq 0 ]
