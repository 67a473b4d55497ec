"""Public paths that are run on fake CUDA tensors, and the copies and reads that each of them is allowed."""

import copy
from functools import cache

import numpy as np
import torch
from fake_cuda import CUDA, FakeCuda
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

import rass_mm
from rass_mm.apis import fitted_precision
from rass_mm.engine.ready import Preparation, prepare

MASK2FORMER, UPERNET = 'rass/rass_scenes_tiny_mask2former.py', 'rass/rass_scenes_tiny.py'
SCR = 'scr/scr_scenes_tiny.py'
WINDOWS = {'mode': 'slide', 'crop_size': (64, 64), 'stride': (32, 32), 'window_batch': 2}
SMALL, LARGE = (64, 96), (96, 160)
"""Sizes of images with 2 and 8 windows."""


def settings(name, base):
    """Returns a shipped config with the given base and all losses of a restorer that need no further weights."""
    config = Config.fromfile(str(rass_mm.config_path(name)))
    options = {'model.backbone.base': str(base)} if name != SCR else {'model.base': str(base)}
    if name == SCR:
        options['model.losses.score.loss_weight'] = 1.0
    else:
        options['model.test_cfg'] = {'_delete_': True, **WINDOWS}
    config.merge_from_dict(options)
    return config


@cache
def built(name, base):
    """Returns a model on the CPU."""
    import rass_mm.restoration  # noqa: F401 - registers the restorer

    init_default_scope('mmseg')
    torch.manual_seed(0)
    return MODELS.build(settings(name, base).model)


def on_card(trace, name, base):
    """Returns a model on the fake card."""
    return trace.placed(built(name, base))


def pictures(size=(64, 64), count=2):
    """Returns random images (3, H, W) uint8 and labels (1, H, W), as from a data loader."""
    labels = torch.randint(0, 12, (count, 1, *size))
    return list(torch.randint(256, (count, 3, *size), dtype=torch.uint8)), [PixelData(data=label) for label in labels]


def segmentation_batch(size=(64, 64), count=2):
    """Returns a batch of a segmentor."""
    images, labels = pictures(size, count)
    meta = {'img_shape': size, 'ori_shape': size}
    return {'inputs': images, 'data_samples': [SegDataSample(gt_sem_seg=label, metainfo=meta) for label in labels]}


def restoration_batch(size=(64, 64), count=2):
    """Returns a batch of a restorer, with clean images and labels."""
    from mmagic.structures import DataSample

    (images, labels), (clean, _) = pictures(size, count), pictures(size, count)
    samples = [DataSample(gt_img=target, gt_sem_seg=label) for target, label in zip(clean, labels, strict=True)]
    return {'inputs': images, 'data_samples': samples}


def trained(trace, name, base, batch):
    """Runs a training step in mixed precision."""
    model = on_card(trace, name, base).train()
    optimizer = build_optim_wrapper(model, fitted_precision(dict(settings(name, base).optim_wrapper), amp=True))
    trace.found.clear()
    model.train_step(batch(), optimizer)
    for wrapper in optimizer.values() if hasattr(optimizer, 'values') else [optimizer]:
        given = [p for group in wrapper.param_groups for p in group['params'] if p.requires_grad]
        print([n for n, p in model.named_parameters() if p.requires_grad and p not in wrapper.optimizer.state][:20])
        assert given and all(wrapper.optimizer.state[parameter]['step'] == 1 for parameter in given)


def train_mask2former(trace, base, size):
    """Training step of RASS with its Mask2Former head."""
    trained(trace, MASK2FORMER, base, segmentation_batch)


def train_upernet(trace, base, size):
    """Training step of RASS with an UPerNet head."""
    trained(trace, UPERNET, base, segmentation_batch)


def train_restorer(trace, base, size):
    """Training step of SCR with the image, VSD and constraint losses."""
    trained(trace, SCR, base, restoration_batch)


def score(trace, base, size):
    """VSD loss and loss of its critic, without the rest of a training step."""
    model = on_card(trace, SCR, base).train()
    latent = torch.randn(2, model.base.configs['unet']['in_channels'], 8, 8, device=CUDA, requires_grad=True)
    context, negative = model.prompt(latent).context, model.negative.expand(2, -1, -1)
    trace.found.clear()
    model.losses['score'](model.generator.shared, model.alphas, latent, context, negative).backward()
    with model.generator.shared.critic():
        model.losses['score'].critic_loss(model.generator.shared, model.alphas, latent, context).backward()
    assert latent.grad.device == CUDA


def predict(trace, base, size):
    """Prediction in windows by an unprepared segmentor, as in the validation of a training."""
    model = on_card(trace, UPERNET, base).eval()
    trace.found.clear()
    model.test_step(segmentation_batch(size, 1))


def test_restorer(trace, base, size):
    """Prediction in windows by an unprepared restorer, as in the validation of a training."""
    model = on_card(trace, SCR, base).eval()
    model.test_cfg |= {'window': 64, 'overlap': 32, 'window_batch': 2}
    batch = restoration_batch(size, 1)
    batch['data_samples'] = None
    trace.found.clear()
    model.test_step(batch)


def prepared(trace, base, size):
    """Preparation of a segmentor, and its prediction in windows. The second of two predictions counts."""
    model = prepare(on_card(trace, MASK2FORMER, base), Preparation('bfloat16'))
    assert not any(kind in ('copy', 'read', 'mixed') for kind, _ in trace.found), trace.found
    for _ in range(2):
        trace.found.clear()
        model.test_step(segmentation_batch(size, 1))


def restore(trace, base, size):
    """Restoration of an image in windows, as by `rass-mm restore` and `PhotoRestorer.predict`."""
    from rass_mm.diffusion.restorer import Restorer
    from rass_mm.inference.restore import RestoreOptions, restore_image

    plain = copy.deepcopy(built(SCR, base))
    network = prepare(trace.placed(Restorer(plain.generator, plain.test_prompt)), Preparation('bfloat16'))
    trace.found.clear()
    image = np.random.default_rng(0).random((*size, 3), np.float32)
    assert restore_image(image, network, RestoreOptions(window=64, overlap=32, batch=2)).shape == image.shape


def segment(trace, base, size):
    """Segmentation of a photo with its confidence, as by `rass-mm segment` and `Segmentor.predict`."""
    from rass_mm.inference.modes import SegmentOptions
    from rass_mm.inference.segmentor import Segmentor

    model = prepare(on_card(trace, MASK2FORMER, base), Preparation('bfloat16'))
    options = SegmentOptions(confidence=True, mode='windows', window=64, overlap=32, batch=2)
    palette = [(0, 0, 0)] * len(model.classes)
    segmentor = Segmentor(model, [{'type': 'PackSegInputs'}], model.classes, palette, options)
    for _ in range(2):
        trace.found.clear()
        assert segmentor.predict(np.zeros((*size, 3), np.uint8)).labels.shape == size


def benchmark(trace, base, size):
    """Counting pass, timed pass and pass timed by stage of a benchmark."""
    from rass_mm.analysis.speed.job import Job
    from rass_mm.analysis.speed.measure import counted, timed, timed_by_stage
    from rass_mm.analysis.speed.models import Models, weights_key
    from rass_mm.analysis.speed.variants import Variant, settled

    options = {'model.backbone.base': str(base), 'model.test_cfg': {'_delete_': True, **WINDOWS}}
    variant = Variant('ours', MASK2FORMER, dtype='bfloat16', overrides=options)
    models = Models(CUDA)
    models._read[weights_key(variant, settled(variant)[0].model)] = on_card(trace, MASK2FORMER, base)
    job = Job(variant, models, size, batch=1)
    operations, _ = counted(job)
    assert min(operations[stage] for stage in ('encode', 'UNet', 'neck', 'head')) > 0
    trace.found.clear()
    timed(job)
    stages, _ = timed_by_stage(job)
    assert {'encode', 'UNet', 'neck', 'head'} <= stages.keys()


LOADED = {
    ('copy', 'mmengine.model.base_model.data_preprocessor:BaseDataPreprocessor.cast_data'): 2,
}
"""The batch of a data loader is moved to the card: two images."""
PATHS = {}


def checked(path, base, size=SMALL):
    """Runs a path on the fake card and returns its findings. Everything that is not allowed is an error."""
    torch.manual_seed(0)
    with FakeCuda() as trace:
        path(trace, base, size)
    allowed = PATHS[path]
    wrong = {key: count for key, count in trace.found.items() if count != allowed.get(key)}
    missing = {key: count for key, count in allowed.items() if key not in trace.found}
    assert not wrong, 'not allowed: ' + ', '.join(f'{kind} in {place}, {n}' for (kind, place), n in wrong.items())
    assert not missing, f'allowed, but not found: {missing}'
    return trace.found
