"""Baseline configs reduced to the drawn scenes, run with the real commands."""

import json

import pytest
import torch
from commands import warm
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

import rass_mm
from rass_mm.engine.checkpoints import load_local

LEAF = 'baselines/segformer_b0_ft_ade20k_lq.py'
NARROW = {'embed_dims': 8, 'num_layers': '[1,1,1,1]', 'num_heads': '[1,1,2,2]'}


def shrunk(scenes):
    """Returns --cfg-options for scenes instead of ADE20K, a narrow network, small crops and two iterations."""
    options = {f'model.backbone.{key}': value for key, value in NARROW.items()}
    options |= {'model.decode_head.in_channels': '[8,8,16,16]', 'model.decode_head.channels': 16}
    options |= {'model.decode_head.num_classes': 12, 'model.data_preprocessor.size': '(64,64)'}
    for split, images, labels in (
        ('train', 'img_dir/train', 'ann_dir/train'),
        ('val', 'img_lq/val', 'ann_dir/val'),
        ('test', 'img_lq/val', 'ann_dir/val'),
    ):
        loader, dataset = f'{split}_dataloader', f'{split}_dataloader.dataset'
        options |= {f'{loader}.num_workers': 0, f'{loader}.persistent_workers': False}
        options |= {f'{dataset}.type': 'ScenesDataset', f'{dataset}.data_root': scenes, f'{dataset}.img_suffix': '.png'}
        options |= {f'{dataset}.data_prefix.img_path': images, f'{dataset}.data_prefix.seg_map_path': labels}
        options |= {f'{dataset}.pipeline.2.num_classes': 12}  # LoadLabelStrict
    options |= {'train_dataloader.dataset.pipeline.3.scales': '[64,96]'}
    options |= {'train_dataloader.dataset.pipeline.4.crop_size': '(64,64)'}
    options |= {f'{split}_dataloader.dataset.pipeline.1.scale': '(192,96)' for split in ('val', 'test')}
    options |= {'train_cfg.max_iters': 2, 'train_cfg.val_interval': 2, 'default_hooks.logger.interval': 1}
    return ['--cfg-options', *(f'{key}={value}' for key, value in options.items())]


@pytest.mark.slow
def test_a_baseline_starts_from_its_pretrained_backbone_trains_and_tests(scenes, tmp_path):
    weights, work = tmp_path / 'mit.pth', tmp_path / 'run'
    torch.save(narrow_backbone().state_dict(), weights)
    common = [*shrunk(scenes), f'model.backbone.init_cfg.checkpoint={weights}']
    done = warm('tools/train.py', LEAF, '--work-dir', work, *common)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    log = [json.loads(line) for line in next(work.glob('*/vis_data/scalars.json')).read_text().splitlines()]
    losses = {record['step']: record['loss'] for record in log if 'loss' in record}
    assert set(losses) == {1, 2} and min(losses.values()) > 0
    trained, first = load_local(work / 'iter_2.pth')['state_dict'], torch.load(weights)
    apart = [(trained[f'backbone.{key}'] - value).abs().max() for key, value in first.items()]
    assert 0 < max(apart) < 1e-6  # the first warm-up steps are tiny, so these are nearly the values of the file
    weights.unlink()  # a test does not need it
    done = warm('tools/test.py', LEAF, work / 'iter_2.pth', '--work-dir', tmp_path / 'test', *common)
    assert done.returncode == 0, done.stderr[-3000:]
    assert 0 <= json.loads((tmp_path / 'test' / 'metrics.json').read_text())['metrics']['mIoU'] <= 100


def narrow_backbone():
    config = Config.fromfile(str(rass_mm.config_path(LEAF))).model.backbone
    options = {'embed_dims': 8, 'num_layers': [1] * 4, 'num_heads': [1, 1, 2, 2], 'init_cfg': None}
    torch.manual_seed(3)
    init_default_scope('mmseg')
    return MODELS.build({**config, **options})
