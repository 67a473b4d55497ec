"""The ADE20K config at full size: parameter counts on the meta device; one real training step as a slow extra."""

import json
import resource
import time
from collections import Counter

import pytest
import torch
from commands import python
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

import rass_mm
from rass_mm.diffusion.adapters import layer_group
from rass_mm.diffusion.known_bases import write_random_base
from rass_mm.engine.mixed_precision import fitted_precision

# As instantiated from the authors' released code (METHOD: 27.9 M in the paper).
RELEASED = {
    'lora': 4_044_176,
    'conv_in': 11_840,
    'projections': 3_774_464,
    'pixel_decoder': 5_577_152,
    'decoder': 14_497_431,
}
RELEASED_LORA = {'encoder': 1_253_776, 'decoder': 2_413_568, 'mid': 376_832}


def group(name):
    if 'lora_' in name:
        return 'lora'
    if 'conv_in' in name:
        return 'conv_in'
    if name.startswith('neck'):
        return 'projections'
    return 'pixel_decoder' if 'pixel_decoder' in name else 'decoder'


def full_config(folder, layout, width, name='rass_ade20k_lq'):
    write_random_base(folder, layout, weights=False)
    config = Config.fromfile(str(rass_mm.config_path(f'rass/{name}.py')))
    config.merge_from_dict({'model.backbone.base': str(folder), 'model.backbone.expect.cross_attention_dim': width})
    return config


def build_on_meta(config):
    init_default_scope('mmseg')
    with torch.device('meta'):
        return MODELS.build(config.model)


def test_trained_parameters_equal_the_released_ones(tmp_path):
    model = build_on_meta(full_config(tmp_path / 'base', 'sd21-base', 1024))
    trained = Counter()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            trained[group(name)] += parameter.numel()
    assert dict(trained) == RELEASED
    assert sum(trained.values()) == 27_905_063
    lora = Counter()
    for name, parameter in model.backbone.extractor.unet.named_parameters():
        if 'lora_' in name:
            lora[layer_group(name)] += parameter.numel()
    assert dict(lora) == RELEASED_LORA


def test_the_mlp_head_changes_the_trained_parameters_of_the_head_only(tmp_path):
    model = build_on_meta(full_config(tmp_path / 'base', 'sd21-base', 1024, 'rass_ade20k_lq_segformer'))
    trained = Counter()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            trained[group(name)] += parameter.numel()
    assert dict(trained) == {
        **{part: RELEASED[part] for part in ('lora', 'conv_in', 'projections')},
        'decoder': 4 * (512 * 256 + 2 * 256) + (4 * 256 * 256 + 2 * 256) + (256 + 1) * 150,
    }
    assert sum(trained.values()) == 8_658_022  # configs/rass/README.md


def test_checkpoint_of_the_full_model_holds_the_trained_part_only(tmp_path):
    state = build_on_meta(full_config(tmp_path / 'base', 'sd21-base', 1024)).state_dict()
    parameters = sum(value.numel() for key, value in state.items() if key != '_extra_state')
    # mmdet's class-weight buffers are the only addition.
    assert 27_905_063 <= parameters <= 27_905_063 + 1000


@pytest.mark.parametrize(('layout', 'width'), [('sd15', 768), ('sd-turbo', 1024)])
def test_other_stable_diffusion_folders_build_alike(tmp_path, layout, width):
    model = build_on_meta(full_config(tmp_path / 'base', layout, width))
    assert model.backbone.channels == [256, 512, 1280, 1280, 640, 320]
    assert model.backbone.strides == [4, 8, 32, 16, 8, 8]
    assert model.prompt.tokens.shape == (151, width)


# Learning rate, weight decay, and the number of parameters, of the released code: a tenth of the rate for what lies in
# its backbone, decay by the type of the layer. The numbers of norms and embeddings follow from the widths.
GROUPS = {
    'LoRA and conv_in': (1e-5, 0.05, RELEASED['lora'] + RELEASED['conv_in']),
    'neck convolutions': (1e-5, 0.05, RELEASED['projections'] - (6 * 2 * (128 + 128 + 512) + 5 * 2 * 512)),
    'neck norms': (1e-5, 0, 6 * 2 * (128 + 128 + 512) + 5 * 2 * 512),
    'head norms': (1e-4, 0, None),
    'head embeddings': (1e-4, 0, (100 + 100 + 3) * 256),
    'head, all else': (1e-4, 0.05, None),
}


def group_of(name, module):
    """By the type of the layer that owns the parameter and the part of the model it is in; no names of layers."""
    part = name.split('.')[0]
    if part == 'backbone':
        return 'LoRA and conv_in'
    if isinstance(module, (torch.nn.GroupNorm, torch.nn.LayerNorm)):
        return {'neck': 'neck norms', 'decode_head': 'head norms'}[part]
    if part == 'neck':
        return 'neck convolutions'
    # The released decoder has three embeddings; its pixel decoder's level encoding is a bare parameter.
    embedding = isinstance(module, torch.nn.Embedding) and 'pixel_decoder' not in name
    return 'head embeddings' if embedding else 'head, all else'


def test_learning_rate_and_decay_of_every_trained_parameter_are_the_released_ones(tmp_path):
    config = full_config(tmp_path / 'base', 'sd21-base', 1024)
    model = build_on_meta(config)
    options = build_optim_wrapper(model, fitted_precision(dict(config.optim_wrapper))).optimizer.param_groups
    used = Counter(id(p) for option in options for p in option['params'])
    given = {id(p): (option['lr'], option['weight_decay']) for option in options for p in option['params']}
    counts = Counter()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(prefix, recurse=False):
            if parameter.requires_grad:
                expected = group_of(name, module)
                assert used.pop(id(parameter)) == 1, name
                assert given[id(parameter)] == pytest.approx(GROUPS[expected][:2]), (name, expected)
                counts[expected] += parameter.numel()
    assert not used, 'the optimiser has parameters that are not trained'
    assert counts.keys() == GROUPS.keys() and sum(counts.values()) == 27_905_063
    for expected, (_, _, numbers) in GROUPS.items():
        assert numbers in (None, counts[expected]), (expected, counts[expected])


@pytest.mark.slow
def test_one_training_step_at_full_size_on_this_cpu(tmp_path, scenes):
    made = python('-m', 'rass_mm', 'random-base', tmp_path / 'base')
    assert made.returncode == 0, made.stderr
    assert 'RANDOM' in (tmp_path / 'base' / 'README.md').read_text()
    started = time.monotonic()
    done = python(
        *('tools/train.py', 'rass/rass_ade20k_lq.py', '--work-dir', tmp_path / 'run', '--cfg-options'),
        f'model.backbone.base={tmp_path / "base"}',
        'train_dataloader.dataset.type=ScenesDataset',
        f'train_dataloader.dataset.data_root={scenes}',
        'train_dataloader.dataset.data_prefix.img_path=img_dir/train',
        'train_dataloader.dataset.data_prefix.seg_map_path=ann_dir/train',
        'train_dataloader.batch_size=1',
        'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False',
        'train_cfg.max_iters=1',
        'default_hooks.logger.interval=1',
        *('val_dataloader=None', 'val_cfg=None', 'val_evaluator=None', 'default_hooks.checkpoint.save_best=None'),
        timeout=1800,
        env={'OMP_NUM_THREADS': '2'},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    record = json.loads(next((tmp_path / 'run').glob('*/vis_data/scalars.json')).read_text().splitlines()[0])
    print(f'full-size step: {record["time"]:.0f} s, process {seconds:.0f} s, peak {peak:.1f} GiB, {record}')
    assert record['loss'] > 0
