"""Several batches per update of whole segmentors, compared with one large batch, on one and on several processes."""

import copy
from types import SimpleNamespace

import pytest
import torch
from accumulated import distance, trained
from mmengine.dataset import pseudo_collate
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from tiny_segmentors import shipped

from rass_mm.engine import loop
from rass_mm.segmentation import update_factors


def segmentor(base, head='', **options):
    """Shipped tiny RASS without dropout, on the random base."""
    init_default_scope('mmseg')
    config = shipped(f'rass/rass_scenes_tiny{head}.py', **{'model.backbone.base': str(base), **options})
    if not head:
        config.model.decode_head.dropout_ratio = 0.0
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    model.init_weights()  # the runner does this only once
    return model, config


def scenes_of(size, count=8, ignored=False):
    """Random images with labels; with `ignored`, each image has another number of labelled pixels."""
    generator = torch.Generator().manual_seed(0)
    samples = []
    for number in range(count):
        image = torch.randint(256, (3, size, size), generator=generator).byte()
        label = torch.randint(12, (1, size // 8, size // 8), generator=generator)
        label = label.repeat_interleave(8, 1).repeat_interleave(8, 2)
        if ignored:
            label[:, : number * size // count] = 255
        sample = SegDataSample(gt_sem_seg=PixelData(data=label))
        sample.set_metainfo({'img_shape': (size, size), 'ori_shape': (size, size), 'pad_shape': (size, size)})
        samples.append({'inputs': image, 'data_samples': sample})
    return samples


def gradients(model, batches, monkeypatch, processes):
    """Gradients of a model after one update of each of `processes` processes, which are run one after the other.

    The all-reduces of this process are replaced by the mean over the batches of all processes.
    """
    monkeypatch.setattr(loop, 'get_world_size', lambda: processes)
    rows, model = [], copy.deepcopy(model)

    def mean(values, op):
        assert op == 'mean'
        rows.append(values.clone())
        values.copy_(torch.stack(known).mean(0) if known else values)

    monkeypatch.setattr(update_factors, 'all_reduce', mean)
    known = []
    for _ in range(2):  # first the divisors of all processes, then the gradients
        model.zero_grad()
        known, rows = list(rows), []
        for batch in batches:
            runner = SimpleNamespace(model=model, optim_wrapper=Backward(processes), call_hook=lambda *_, **__: None)
            one = object.__new__(loop.ResumableIterLoop)
            one.__dict__.update(_runner=runner, accumulated=1, fixed=True, _iter=0)
            one.run_iter(batch)
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


class Backward(OptimWrapper):
    """Optimizer wrapper that adds gradients, divided by the number of processes, and never updates."""

    def __init__(self, processes):
        super().__init__(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.0))
        self.processes = processes

    def update_params(self, loss, step_kwargs=None, zero_kwargs=None):
        (loss / self.processes).backward()


def test_processes_with_unequal_labels_have_the_gradients_of_the_large_batch(tiny_base, monkeypatch):
    model, _ = segmentor(tiny_base, **{'model.data_preprocessor.size': (32, 32)})
    model.double()
    samples = scenes_of(32, count=4, ignored=True)
    batches = [pseudo_collate(copy.deepcopy(samples[start : start + 2])) for start in (0, 2)]
    whole = gradients(model, [pseudo_collate(copy.deepcopy(samples))], monkeypatch, 1)
    parts = gradients(model, batches, monkeypatch, 2)
    largest = max(value.abs().max().item() for value in whole.values())
    print('largest difference', distance(whole, parts), 'largest gradient', largest)
    assert distance(whole, parts) < 1e-9 * largest


def optimizer_of(config):
    return lambda model: build_optim_wrapper(model, config.optim_wrapper)


@pytest.fixture
def same_points(monkeypatch):
    """Gives all segments the same random points."""

    def rand(*size, device=None):
        size = size[0] if isinstance(size[0], tuple) else size
        return (
            torch.empty(1, *size[1:])
            .uniform_(generator=torch.Generator().manual_seed(0))
            .expand(size)
            .contiguous()
            .to(device)
        )

    monkeypatch.setattr(torch, 'rand', rand)


OTHER = dict(type='SGD', lr=1.0)
CASES = {
    'quick': ('', 1, None),
    '20 updates': pytest.param('', 20, None, marks=pytest.mark.slow),
    'Mask2Former': pytest.param('_mask2former', 1, OTHER, marks=pytest.mark.slow),
}


@pytest.mark.parametrize(('head', 'updates', 'optimizer'), CASES.values(), ids=CASES)
def test_a_segmentor_gets_the_weights_of_the_large_batch(tiny_base, tmp_path, same_points, head, updates, optimizer):
    """The images have different numbers of labelled pixels and segments.

    With the config's AdamW in float64: Adam divides gradients by their size, which makes rounding errors of very small
    ones as large as the learning rate. Mask2Former's decoder needs float32, so its gradients are compared.
    """
    size = 64 if head else 32
    model, config = segmentor(tiny_base, head, **{'model.data_preprocessor.size': (size, size)})
    if optimizer is None:
        model.double()
    else:
        config.optim_wrapper.optimizer = optimizer
    start = {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}
    arguments = (model, optimizer_of(config), scenes_of(size, ignored=True))
    whole = trained(*arguments, tmp_path / 'whole', updates, 4)
    parts = trained(*arguments, tmp_path / 'parts', updates, 1, 4)
    print('largest difference', distance(whole, parts), 'largest step', distance(whole, start))
    assert distance(whole, parts) < 1e-5 < 1e-3 < distance(whole, start)


@pytest.mark.parametrize('head', ['', pytest.param('_mask2former', marks=pytest.mark.slow)])
def test_clean_twins_get_the_weights_of_the_large_batch(tiny_base, tmp_path, same_points, head):
    """A pair counts as one image of the batch."""
    size = 64 if head else 32
    twins = {'model.train_cfg.clean_twins.kl_weight': 1.0}
    model, config = segmentor(tiny_base, head, **{'model.data_preprocessor.size': (size, size)}, **twins)
    config.optim_wrapper.optimizer = OTHER
    samples = scenes_of(size, ignored=True)
    for sample in samples:
        sample['data_samples'].set_metainfo({'gt': sample['inputs'].permute(1, 2, 0).numpy() // 2})
    arguments = (model, optimizer_of(config), samples)
    whole, parts = (trained(*arguments, tmp_path / str(size), 1, size, 4) for size in (4, 1))
    start = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
    print('largest difference', distance(whole, parts), 'largest step', distance(whole, start))
    assert distance(whole, parts) < 1e-5 < 1e-3 < distance(whole, start)
