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
from rass_mm.engine.mixed_precision import fitted_precision
from rass_mm.engine.ready import Preparation, prepare

MASK2FORMER, UPERNET = 'rass/rass_scenes_tiny_mask2former.py', 'rass/rass_scenes_tiny.py'
SCR = 'scr/scr_scenes_tiny.py'
CAST = 'mmengine.model.base_model.data_preprocessor:BaseDataPreprocessor.cast_data'
SAMPLES = 'mmengine.structures.base_data_element:BaseDataElement.to'
CHANNELS = 'mmseg.models.data_preprocessor:SegDataPreProcessor.forward.<locals>.<listcomp>'
RANGES = 'mmagic.models.data_preprocessors.data_preprocessor:DataPreprocessor._do_conversion.<locals>.conversion'
CLIP = 'mmengine.optim.optimizer.optimizer_wrapper:OptimWrapper._clip_grad'
DECODER = 'mmdet.models.layers.msdeformattn_pixel_decoder:MSDeformAttnPixelDecoder.forward'
HEAD = 'mmdet.models.dense_heads.mask2former_head:Mask2FormerHead'
MATCHER = 'mmdet.models.task_modules.assigners.hungarian_assigner:HungarianAssigner.assign'
ATTENTION = 'mmcv.ops.multi_scale_deform_attn:MultiScaleDeformableAttention.forward'
"""Functions of other libraries that copy or read. They are allowed by name and number."""
STAGES = 4
"""Number of predictions of the tiny Mask2Former head that are matched and compared with the labels."""
PATHS = {}
WINDOWS = {'mode': 'slide', 'crop_size': (64, 64), 'stride': (32, 32), 'window_batch': 2}
SMALL, LARGE = (64, 96), (96, 160)
"""Sizes of images with 2 and 8 windows."""


def path(allowed):
    """Returns a decorator that registers a path with the findings that it may have, each with its number."""

    def register(run):
        PATHS[run.__name__] = (run, allowed)
        return run

    return register


def segmentor_batch(images):
    """Returns the findings of moving the batch of a segmentor to the card."""
    return {('copy', CAST): images, ('copy', SAMPLES): images, ('copy', CHANNELS): images}


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


def pictures(size=(64, 64), count=1):
    """Returns random images (3, H, W) uint8 and labels (1, H, W), as from a data loader."""
    labels = torch.randint(0, 12, (count, 1, *size))
    return list(torch.randint(256, (count, 3, *size), dtype=torch.uint8)), [PixelData(data=label) for label in labels]


def segmentation_batch(size=(64, 64), count=1):
    """Returns a batch of a segmentor."""
    images, labels = pictures(size, count)
    meta = {'img_shape': size, 'ori_shape': size}
    return {'inputs': images, 'data_samples': [SegDataSample(gt_sem_seg=label, metainfo=meta) for label in labels]}


def restoration_batch(size=(64, 64), count=1):
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
        assert given and all(wrapper.optimizer.state[parameter]['step'] == 1 for parameter in given)


@path(
    {
        **segmentor_batch(1),
        ('copy', MATCHER): 3 * STAGES,
        ('scalar', MATCHER): STAGES,
        ('copy', f'{HEAD}._loss_by_feat_single'): 2 * STAGES,
        ('read', f'{HEAD}._loss_by_feat_single'): 2 * STAGES,
        ('scalar', f'{HEAD}._get_targets_single'): STAGES,
        ('copy', 'mmdet.models.losses.cross_entropy_loss:CrossEntropyLoss.forward'): STAGES,
        ('read', 'mmdet.models.task_modules.samplers.mask_pseudo_sampler:MaskPseudoSampler.sample'): 4 * STAGES,
        ('read', 'mmseg.models.decode_heads.mask2former_head:Mask2FormerHead._seg_data_to_instance_data'): 2,
        ('read', 'mmengine.optim.optimizer.amp_optimizer_wrapper:AmpOptimWrapper.backward'): STAGES,
        ('copy', DECODER): 3,
        ('read', DECODER): 3,
        ('read', f'{DECODER}.<locals>.<listcomp>'): 6,
        ('read', ATTENTION): 2,
        ('read', CLIP): 1,
    }
)
def train_mask2former(trace, base, size):
    """Training step of RASS with its Mask2Former head."""
    trained(trace, MASK2FORMER, base, segmentation_batch)


@path(
    {
        **segmentor_batch(1),
        ('read', 'mmseg.models.losses.accuracy:accuracy'): 2,
        ('read', 'mmseg.models.losses.cross_entropy_loss:cross_entropy'): 1,
        ('read', CLIP): 1,
    }
)
def train_upernet(trace, base, size):
    """Training step of RASS with an UPerNet head."""
    trained(trace, UPERNET, base, segmentation_batch)


@path(
    {
        **{('copy', CAST): 1, ('copy', SAMPLES): 2, ('copy', RANGES): 2},
        ('copy', 'rass_mm.restoration.losses.semantic_constraint:ClassTargets.__init__'): 2,
        ('read', 'rass_mm.restoration.losses.semantic_constraint:large_classes'): 4,
        ('read', 'rass_mm.restoration.optimization:update'): 2,
        ('read', CLIP): 2,
    }
)
def train_restorer(trace, base, size):
    """Training step of SCR with the image, VSD and constraint losses."""
    trained(trace, SCR, base, restoration_batch)


@path({})
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


@path(segmentor_batch(1))
def predict(trace, base, size):
    """Prediction in windows by an unprepared segmentor, as in the validation of a training."""
    model = on_card(trace, UPERNET, base).eval()
    trace.found.clear()
    model.test_step(segmentation_batch(size))


@path({('copy', CAST): 1, ('copy', RANGES): 1, ('copy', 'rass_mm.restoration.samples:to_bgr'): 2})
def validate_restorer(trace, base, size):
    """Prediction in windows by an unprepared restorer, as in the validation of a training."""
    model = on_card(trace, SCR, base).eval()
    model.test_cfg |= {'window': 64, 'overlap': 32, 'window_batch': 2}
    batch = restoration_batch(size)
    batch['data_samples'] = None
    trace.found.clear()
    model.test_step(batch)


@path(segmentor_batch(1))
def prepared(trace, base, size):
    """Preparation of a segmentor, and its prediction in windows. The second of two predictions counts."""
    model = prepare(on_card(trace, MASK2FORMER, base), Preparation('bfloat16'))
    for _ in range(2):
        trace.found.clear()
        model.test_step(segmentation_batch(size))


@path({('copy', 'rass_mm.inference.restore:restore_image'): 2, ('read', 'rass_mm.inference.restore:_Checked.check'): 1})
def restore(trace, base, size):
    """Restoration of an image in windows, as by `rass-mm restore` and `PhotoRestorer.predict`."""
    from rass_mm.diffusion.restorer import Restorer
    from rass_mm.inference.restore import RestoreOptions, restore_image

    plain = copy.deepcopy(built(SCR, base))
    network = prepare(trace.placed(Restorer(plain.generator, plain.test_prompt)), Preparation('bfloat16'))
    trace.found.clear()
    image = np.random.default_rng(0).random((*size, 3), np.float32)
    assert restore_image(image, network, RestoreOptions(window=64, overlap=32, batch=2)).shape == image.shape


@path({('copy', CAST): 1, ('copy', CHANNELS): 1, ('copy', 'rass_mm.inference.labelling:label_image'): 2})
def segment(trace, base, size):
    """Segmentation of a photo with its confidence, as by `rass-mm segment` and `Segmentor.predict`."""
    from rass_mm.inference.modes import SegmentOptions
    from rass_mm.inference.segmentor import Segmentor

    model = prepare(on_card(trace, MASK2FORMER, base), Preparation('bfloat16'))
    options = SegmentOptions(confidence=True, mode='windows', window=64, overlap=32, batch_size=2)
    palette = [(0, 0, 0)] * len(model.classes)
    segmentor = Segmentor(model, [{'type': 'PackSegInputs'}], model.classes, palette, options)
    for _ in range(2):
        trace.found.clear()
        assert segmentor.predict(np.zeros((*size, 3), np.uint8)).labels.shape == size


@path({('synchronize', 'rass_mm.devices:synchronise'): 2})
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
    timing = trace.found.copy()
    stages, _ = timed_by_stage(job)
    assert {'encode', 'UNet', 'neck', 'head'} <= stages.keys()
    assert {kind for kind, _ in trace.found} == {'synchronize'}, trace.found
    trace.found = timing  # the number of synchronizations of a pass by stage depends on the number of windows


def checked(name, base, size=SMALL):
    """Runs a path on the fake card. Every finding that is not allowed is an error."""
    run, allowed = PATHS[name]
    torch.manual_seed(0)
    with FakeCuda() as trace:
        run(trace, base, size)
    wrong = {key: count for key, count in trace.found.items() if count != allowed.get(key)}
    missing = [key for key in allowed if key not in trace.found]
    assert not wrong, 'not allowed: ' + ', '.join(
        f'{count} x {kind} in {place}' for (kind, place), count in wrong.items()
    )
    assert not missing, f'allowed, but not found: {missing}'
