#!/usr/bin/env bash
# Runs the test suite in two parallel processes with one thread each. The second one runs the folders below, which take
# as long as all others. With arguments, runs plain pytest.
set -u
[ $# -gt 0 ] && exec python -m pytest "$@"
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
second=(tests/{tools,experiments,analysis,restoration,rass_mm_cli,jobs,published,datasets,export,demo})
# A test that hangs ends its process with the stacks of all threads.
options=(-o faulthandler_timeout=600 -o faulthandler_exit_on_timeout=true)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
python -m pytest "${options[@]}" "${second[@]}" >"$log" 2>&1 &
other=$!
python -m pytest "${options[@]}" "${second[@]/#/--ignore=}"
first=$?
echo "${second[*]}:"
wait $other
status=$?
cat "$log"
[ $first -eq 0 ] && [ $status -eq 0 ]
