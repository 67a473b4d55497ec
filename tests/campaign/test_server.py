"""The peak memory of a command in a fork is measured, also of one that is killed."""

import os
import signal
import time

import pytest
import torch
from campaign import cases, server

SIZE = 300


def take():
    taken = torch.ones(SIZE * 2**18)
    del taken
    return 0


def take_and_die():
    taken = torch.ones(SIZE * 2**18)
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)
    del taken


@pytest.mark.parametrize('call, least', [(take, SIZE), (take_and_die, SIZE), (lambda: 0, 0)])
def test_peak_memory_of_a_fork(call, least, tmp_path):
    outcome = server.forked(call, tmp_path, tmp_path / 'log', tmp_path / 'canary')
    assert least <= outcome.peak < least + 60


def test_a_case_of_too_much_memory_is_wrong():
    case = cases.Case('group/case', 'command', ok=True)
    assert cases.verdict(case, cases.Outcome(0, 1, cases.MEBIBYTES + 1, ''), None) == ['took 2049 MiB']
