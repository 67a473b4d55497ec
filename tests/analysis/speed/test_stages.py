"""Division of an amount among stages, and models shared by variants."""

import pytest
import torch
from torch import nn

from rass_mm.analysis.speed.job import Job
from rass_mm.analysis.speed.models import Models, module_tensors
from rass_mm.analysis.speed.stages import StageMeter, replaced
from rass_mm.analysis.speed.variants import Variant
from rass_mm.diffusion.stages import StagePoint
from rass_mm.engine import ready
from rass_mm.errors import ConfigError

RASS = 'rass/rass_scenes_tiny.py'


class Clock:
    """Clock that is advanced explicitly."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Steps:
    """Two methods with known durations, of which one calls the other."""

    def __init__(self, clock):
        self.clock = clock

    def outer(self):
        self.clock.now += 1
        self.inner()
        self.inner()
        self.clock.now += 4

    def inner(self):
        self.clock.now += 10

    def put_off(self):
        def later(seconds):
            self.clock.now += seconds
            return 'done'

        return later


def test_time_inside_a_nested_stage_counts_for_that_stage():
    clock = Clock()
    steps, meter = Steps(clock), StageMeter(clock)
    with meter.watching([StagePoint('out', steps, 'outer'), StagePoint('in', steps, 'inner')]):
        clock.now += 100
        steps.outer()
        clock.now += 200
    assert meter.amounts == {'out': 5, 'in': 20, 'other': 300}
    assert vars(steps) == {'clock': clock}  # nothing stays wrapped


def test_deferred_work_counts_for_its_stage():
    clock = Clock()
    steps, meter = Steps(clock), StageMeter(clock)
    with meter.watching([StagePoint('late', steps, 'put_off')]):
        later = steps.put_off()
        clock.now += 100
        assert later(7) == 'done'
    assert meter.amounts == {'late': 7, 'other': 100}


def test_an_error_inside_leaves_nothing_wrapped():
    clock = Clock()
    steps, meter = Steps(clock), StageMeter(clock)
    with pytest.raises(ZeroDivisionError), meter.watching([StagePoint('in', steps, 'inner')]):
        steps.inner()
        raise ZeroDivisionError
    assert vars(steps) == {'clock': clock} and meter.amounts['in'] == 10


def test_submodules_and_attributes_are_restored():
    module = nn.Sequential(nn.Linear(1, 1))
    first, other = module[0], nn.Linear(1, 1)
    with replaced(module, '0', lambda _old: other), replaced(module, 'training', lambda _old: None):
        assert module[0] is other and module.training is None
    assert module[0] is first and module.training is True


@pytest.fixture(scope='module')
def models():
    """Source of models on the CPU."""
    return Models(torch.device('cpu'))


@pytest.fixture
def job(models, tiny_base):
    """Function that returns the tiny RASS model as a job at 64x64."""

    def make(name='a', size=(64, 64), overrides=None, **options):
        given = {'model.backbone.base': str(tiny_base), **(overrides or {})}
        return Job(Variant(name, RASS, overrides=given, **options), models, size, 1)

    return make


def test_variants_share_models_and_tensors(job):
    plain, stitched = job(prepared=False), job(prepared=False, overrides={'model.test_cfg.mode': 'stitched'}, windows=2)
    empty = job(prepared=False, overrides={'model.prompt.type': 'EmptyPrompt'})
    assert plain.model is stitched.model is empty.model
    merged, half = job(), job(dtype='bfloat16')
    assert merged.model is job(overrides={'model.test_cfg.mode': 'stitched'}).model is not plain.model
    assert job(overrides={'model.prompt.type': 'EmptyPrompt'}).model is not merged.model
    mine, theirs = (dict(made.model.backbone.named_parameters()) for made in (plain, merged))
    assert mine['extractor.unet.mid_block.resnets.0.norm1.weight'].data_ptr() in {
        value.data_ptr() for name, value in theirs.items() if 'norm' in name
    }
    assert any('lora_' in name for name in mine) and not any('lora_' in name for name in theirs)
    assert all(tensor.dtype != torch.bfloat16 for tensor in module_tensors(plain.model))
    assert {p.dtype for p in half.model.backbone.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in half.model.decode_head.parameters()} == {torch.float32}  # this head runs under autocast
    other = job(overrides={'model.neck.width': 16})
    assert other.model is not merged.model and merged.trained == plain.trained > 0


@pytest.mark.parametrize(
    ('options', 'tolerance', 'compiled'),
    [
        ({}, 1e-4, 0),
        ({'channels_last': True}, 1e-4, 0),
        ({'dtype': 'bfloat16'}, 0.2, 0),
        ({'compile': True}, 1e-4, 1),  # the encoder, which returns features through hooks like the UNet, but is fast
        pytest.param({'compile': True}, 1e-4, 2, marks=pytest.mark.slow),
    ],
    ids=['prepared', 'channels_last', 'bfloat16', 'compiled encoder', 'compiled'],
)
def test_every_way_to_run_computes_the_same(job, models, options, tolerance, compiled, monkeypatch):
    # Compilation only traces, because code generation takes minutes on a CPU.
    compiler, traced = torch.compile, []
    monkeypatch.setattr(
        torch, 'compile', lambda run, mode, dynamic: traced.append(run) or compiler(run, backend='eager')
    )
    heavy = ready.heavy_modules
    monkeypatch.setattr(ready, 'heavy_modules', lambda *given: heavy(*given)[:compiled])
    models._fitted.clear()
    keep = {'model.test_cfg.keep_logits': True}
    expected = logits(job(prepared=False, overrides=keep))
    found = job(overrides=keep, **options)
    passes = [logits(found) for _ in range(3)]
    models._fitted.clear()
    for values in passes:
        assert (values.float() - expected).abs().max() <= tolerance * expected.abs().max()
    assert len(traced) == compiled


def logits(job):
    """Returns the output of a job's model for its images."""
    with job.active():
        found = job.model.predict(job.inputs, [job._sample()])
    return found[0].seg_logits.data


def test_a_variant_leaves_the_shared_model_as_it_was(job):
    changed = {'model.test_cfg.mode': 'stitched', 'model.prompt.type': 'EmptyPrompt'}
    first, other = job(prepared=False), job(prepared=False, overrides=changed)
    before = first.model.test_cfg, first.model.prompt
    with other.active():
        assert other.model.test_cfg.mode == 'stitched' and other.model.prompt is not before[1]
    assert (first.model.test_cfg, first.model.prompt) == before


def test_size_must_suit_the_model(job):
    with pytest.raises(ConfigError, match='both sides must be multiples of 32 for this model, e.g. 64x96'):
        job(size=(64, 70))
