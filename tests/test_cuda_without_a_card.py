"""All public paths on a fake card: nothing stays on the CPU, and nothing is copied or read per window."""

import cuda_paths
import pytest
import torch
from cuda_paths import LARGE, PATHS, SMALL, checked
from fake_cuda import CUDA, FakeCuda

pytest.importorskip('mmagic', reason='mmagic (rass_mm[restoration]) is not installed')

QUICK = ('train_mask2former', 'predict', 'prepared', 'restore')
TRAINING = ('train_mask2former', 'train_upernet', 'train_restorer', 'score')
FAULTY = {
    'train_mask2former': 'rass_mm.diffusion.extractor.resized',
    'train_restorer': 'rass_mm.diffusion.one_step_restorer.one_step',
    'predict': 'rass_mm.labelling.sliding.cut',
    'restore': 'rass_mm.diffusion.restorer.clamped',
    'score': 'rass_mm.restoration.losses.vsd.add_noise',
    'prepared': 'rass_mm.diffusion.prepared._heads',
    'benchmark': 'rass_mm.diffusion.prepared.attend',
}
"""A function of each path, to whose output a fault is added."""


def stray(x):
    return x + STRAYS.setdefault(x.shape, torch.ones(x.shape))


STRAYS = {}
FAULTS = {
    'cpu': lambda x: x.cpu().to(x.device),
    'stray tensor': stray,
    'item': lambda x: x * (0.5 + x.flatten()[0].item()),
    'numpy': lambda x: x + float(x.detach().float().cpu().numpy().mean()),
    'default device': lambda x: x + torch.zeros(x.shape[-1]),
    'scalar on the default device': lambda x: x + torch.zeros(()),
    'generator of the CPU': lambda x: x + torch.randn(x.shape, device=x.device, generator=torch.Generator()).to(x),
}


@pytest.mark.parametrize(
    'name', [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in PATHS]
)
def test_path_copies_and_reads_only_what_is_allowed(name, tiny_base):
    checked(name, tiny_base)


@pytest.mark.slow
@pytest.mark.parametrize('name', [name for name in PATHS if name not in TRAINING])
def test_four_times_as_many_windows_are_allowed_no_more(name, tiny_base):
    checked(name, tiny_base, LARGE)


@pytest.mark.slow
@pytest.mark.parametrize('fault', FAULTS)
@pytest.mark.parametrize('name', FAULTY)
def test_planted_fault_is_found(name, fault, tiny_base, monkeypatch):
    """Checks that the error comes from the planted function, either as a finding or as an error of PyTorch."""
    target = FAULTY[name]
    module, function = target.rsplit('.', 1)
    original = getattr(__import__(module, fromlist=[function]), function)

    def planted(*args, **kwargs):
        return FAULTS[fault](original(*args, **kwargs))

    monkeypatch.setattr(target, planted)
    with pytest.raises((AssertionError, RuntimeError)) as error:
        checked(name, tiny_base)
    frames = {entry.name for entry in error.traceback}
    assert 'planted' in frames or f'{__name__}:' in str(error.value), error.value


@pytest.mark.parametrize(
    ('fault', 'kind'),
    [
        *(('cpu', 'copy'), ('item', 'read'), ('numpy', 'copy'), ('generator of the CPU', 'generator')),
        *(('stray tensor', 'mixed'), ('default device', 'mixed'), ('scalar on the default device', 'scalar')),
    ],
)
def test_each_fault_is_a_finding_of_its_kind(fault, kind):
    with FakeCuda() as trace:
        x = torch.ones(2, 3, device=CUDA)
        try:
            FAULTS[fault](x)
        except RuntimeError:  # PyTorch refuses tensors on different devices
            assert kind == 'mixed'
    assert {found for found, _ in trace.found} == {kind}


@pytest.mark.parametrize('read', [bool, float, lambda x: x.tolist(), lambda x: x[x > 0], torch.nonzero, torch.unique])
def test_reads_of_values_and_of_sizes_that_depend_on_them_are_found(read):
    with FakeCuda() as trace:
        read(torch.zeros((), device=CUDA) if read in (bool, float) else torch.zeros(2000, device=CUDA))
    assert {kind for kind, _ in trace.found} == {'read'}


def test_gradients_of_the_backward_pass_have_the_shapes_of_the_parameters():
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.GroupNorm(2, 4), torch.nn.Linear(6, 5))
    with FakeCuda() as trace:
        placed = trace.placed(layers)
        with torch.autocast('cuda', torch.bfloat16):
            output = placed(torch.randn(2, 3, 8, 8, device=CUDA))
        assert output.dtype is torch.bfloat16
        output.float().square().mean().backward()
        for parameter in placed.parameters():
            assert parameter.grad.shape == parameter.shape and parameter.grad.device == CUDA
            assert parameter.grad.dtype is torch.float32
    assert not trace.found
    assert all(parameter.device.type == 'cpu' for parameter in layers.parameters())


def test_the_sizes_have_two_and_eight_windows():
    from rass_mm.diffusion.tiling import windows

    counts = [
        len(windows(size, cuda_paths.WINDOWS['crop_size'], cuda_paths.WINDOWS['stride'])) for size in (SMALL, LARGE)
    ]
    assert counts == [2, 8]
