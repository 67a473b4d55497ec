"""Without any single one of our checks, cases of the campaign are wrong: no check is there in vain.

A check is removed in this process, of which `server.run_case` makes a fork for each case. A stand-in that breaks the
command would make every case wrong, so a valid case must stay right without the check.
"""

import functools
import pkgutil
import sys
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from campaign import server
from campaign.cases import Case
from campaign.table import all_cases
from mmengine.runner.checkpoint import CheckpointLoader, load_from_http

import rass_mm.engine.remote  # noqa: F401  (replaces mmengine's loaders of remote files)

PASSED = 'exit status 0'
RAN = 'code of the input ran'
BROKE = 'traceback'
UNNAMED = 'the message lacks'


@dataclass(frozen=True)
class Check:
    """One check of the package.

    Args:
        place: full name of the function or constant.
        wrong: cases that are wrong without it.
        valid: a case that is right without it as well.
        fault: words that the faults of each wrong case contain.
        instead: what takes its place.
    """

    place: str
    wrong: tuple[str, ...]
    valid: str
    fault: str = PASSED
    instead: Any = lambda *_, **__: None


def _nothing(*_: Any, **__: Any) -> tuple:
    return ()


def _content(content: Any, *_: Any) -> Any:
    return content


def _unsafe(filename: str, map_location: Any = None, mmap: bool = False) -> Any:
    return torch.load(filename, map_location=map_location, mmap=mmap, weights_only=False)


def _same_hash(header: dict, tensors: dict) -> str:
    return header['hash']


def _device(name: str | None) -> torch.device:
    return torch.device(name or 'cpu')


CHECKS = {
    'end and checksums of a PNG file': Check(
        'rass_mm.files.damage._png_fault',
        ('images/PNG without its last block/segment', 'images/PNG with a wrong checksum/restore'),
        'images/PNG/segment',
    ),
    'warnings of the JPEG decoder': Check(
        'rass_mm.files.damage._jpeg_fault',
        ('images/JPEG middle/make-lq', 'images/JPEG middle/segment', 'images/JPEG middle/train'),
        'images/JPEG/make-lq',
    ),
    'whole images of a data set': Check(
        'rass_mm.files.integrity.check_complete', ('images/JPEG middle/test',), 'labels/compressed/test'
    ),
    'number of pixels': Check(
        'rass_mm.files.integrity.check_pixels',
        ('images/PNG beyond the limit/make-lq', 'images/PNG beyond the limit/segment'),
        'images/PNG/make-lq',
    ),
    'safe reading of pickles': Check(
        'rass_mm.files.tensors.read_tensors',
        ('malicious/GLOBAL os.popen zip/CheckpointLoader', 'malicious/GLOBAL builtins.eval zip/CheckpointLoader'),
        'checkpoints/valid/segment',
        RAN,
        _unsafe,
    ),
    'checksums of a checkpoint': Check(
        'rass_mm.files.contents.check_archive',
        ('checkpoints/bytes one bit at 0.5/segment', 'checkpoints/bytes 64 bytes in the middle/segment'),
        'checkpoints/valid/segment',
    ),
    'plain and finite contents of a checkpoint': Check(
        'rass_mm.files.contents.check_contents',
        ('malicious/meta tensor/CheckpointLoader', 'malicious/one value repeated tensor/CheckpointLoader'),
        'checkpoints/valid/segment',
        BROKE,
    ),
    'types of JSON records': Check(
        'rass_mm.files.schemas.checked',
        ('jsons/benchmark/size is [64]', 'jsons/metrics/metrics.mIoU text'),
        'jsons/metrics/valid',
        UNNAMED,
        _content,
    ),
    'outputs that would replace an input': Check(
        'rass_mm.files.naming.refuse_inputs',
        ('jsons/metrics as its own report/r x.json', 'jsons/curve as its own report/r'),
        'cmdline/report/title',
    ),
    'state of an output of an earlier run': Check(
        'rass_mm.files.manifest.output_state',
        ('jsons/output first half/segment', 'jsons/output web page/restore'),
        'jsons/output whole/segment',
        'a.png was not made again',
        lambda *_: 'whole',
    ),
    'settings of an earlier run': Check(
        'rass_mm.inference.manifest.DECISIVE',
        ('jsons/manifest header options null/segment', 'jsons/manifest header format "x"/restore'),
        'jsons/output whole/segment',
        instead=(),
    ),
    'outputs in the folder of the images': Check(
        'rass_mm.inference.plan._refuse_inside',
        ('images/target is the source/segment', 'images/target in the source/restore'),
        'images/PNG/segment',
    ),
    'rules of configs that are data': Check(
        'rass_mm.config.rules.check_config_data',
        ('malicious/json that runs os.system/benchmark', 'malicious/text that runs os.system in meta/segment'),
        'malicious/valid yaml/check-data',
        RAN,
    ),
    'names of types in configs that are data': Check(
        'rass_mm.config.rules._check_name',
        ('malicious/json that runs os.system/benchmark', 'malicious/yaml that runs subprocess.Popen/segment'),
        'malicious/valid json/check-data',
        UNNAMED,
    ),
    'modules that a config imports': Check(
        'rass_mm.config.rules.check_imports',
        ('malicious/yaml import os/benchmark', 'malicious/import given in hub/segment'),
        'malicious/valid yaml/check-data',
        UNNAMED,
    ),
    'tags of YAML': Check(
        'rass_mm.config.yaml_data._check_tag',
        ('configs/file YAML tag/train',),
        'malicious/valid yaml/check-data',
        UNNAMED,
    ),
    'size of YAML': Check(
        'rass_mm.config.yaml_data._check_events',
        ('malicious/yaml merge bomb/check-data',),
        'malicious/valid yaml/check-data',
        'still running',
    ),
    'size of a config': Check(
        'rass_mm.config.data.BYTES',
        ('malicious/json 50 MB/check-data',),
        'malicious/valid json/check-data',
        UNNAMED,
        10**9,
    ),
    'values of a config': Check(
        'rass_mm.config.settings._values',
        ('configs/optim_wrapper.clip_grad.max_norm=-1/train',),
        'configs/randomness.seed=None/train',
        instead=_nothing,
    ),
    'types of a config': Check(
        'rass_mm.config.settings._types',
        ('configs/train_dataloader.dataset.type=ScenesDatset/check-data',),
        'configs/train_dataloader=None/check-data',
        UNNAMED,
        _nothing,
    ),
    'settings of tests': Check(
        'rass_mm.config.settings._tests',
        ('configs/model.test_cfg.colour=1/test',),
        'configs/test_dataloader.batch_size=1/test',
        instead=_nothing,
    ),
    'scope of a config': Check(
        'rass_mm.config.settings._scope',
        ('configs/default_scope=mmsg/train',),
        'configs/default_scope=mmseg/check-data',
        UNNAMED,
        _nothing,
    ),
    'remote checkpoints': Check(
        'mmengine.runner.checkpoint.CheckpointLoader._schemes',
        ('malicious/payload that a server offers/CheckpointLoader', 'malicious/payload that a server offers/load_from'),
        'checkpoints/valid/test',
        RAN,
        {**CheckpointLoader._schemes, 'http://': load_from_http},
    ),
    'structure of a checkpoint': Check(
        'rass_mm.engine.structure.check_structure',
        ('checkpoints/meta a text/segment', 'checkpoints/state_dict a list/segment'),
        'checkpoints/valid/segment',
        'traceback',
    ),
    'finite weights': Check(
        'rass_mm.engine.structure.check_finite',
        ('checkpoints/NaN/segment', 'checkpoints/infinity/test'),
        'checkpoints/valid/segment',
    ),
    'base of a checkpoint': Check(
        'rass_mm.engine.trained_state.check_provenance',
        ('checkpoints/record another base/test',),
        'checkpoints/valid RASS/test',
    ),
    'fit of a checkpoint to the model': Check(
        'rass_mm.segmentation.fitting.check_model',
        ('checkpoints/half of the tensors/test', 'checkpoints/other names/load_from'),
        'checkpoints/valid/test',
    ),
    'state of a resumed training': Check(
        'rass_mm.segmentation.fitting.check_training',
        ('checkpoints/training iter negative/resume',),
        'checkpoints/valid/resume',
        BROKE,
    ),
    'header of an adapter': Check(
        'rass_mm.files.adapter_header.check_header',
        ('adapters/header alpha 3 -8/restore',),
        'adapters/unchanged/merge',
    ),
    'tensors of an adapter': Check(
        'rass_mm.diffusion.adapter_checks.check_tensors',
        ('adapters/tensors int64/restore', 'adapters/tensors a VAE tensor/restore'),
        'adapters/unchanged/merge',
    ),
    'all tensors of an adapter': Check(
        'rass_mm.diffusion.adapter_checks.check_complete',
        ('adapters/tensors one A lacks/restore',),
        'adapters/unchanged/merge',
    ),
    'hash of an adapter': Check(
        'rass_mm.diffusion.adapter_files.content_hash',
        ('adapters/bytes inverted in the middle/restore', 'adapters/header hash 0 "0000000000000000"/restore'),
        'adapters/unchanged/merge',
        instead=_same_hash,
    ),
    'base of an adapter': Check(
        'rass_mm.diffusion.adapter_loading.check_base',
        ('adapters/header base 3 {"config": "x", "weights/restore',),
        'adapters/unchanged/merge',
    ),
    'configs of a base': Check(
        'rass_mm.diffusion.base.CONFIG_TYPES',
        ('base/vae scaling_factor 4 -1/load', 'base/scheduler beta_start 2 0/load'),
        'base/whole/load',
        instead=dict.fromkeys(('unet', 'vae', 'text_encoder', 'scheduler'), dict[str, Any]),
    ),
    'parts of a base that fit together': Check(
        'rass_mm.diffusion.base._require', ('base/scheduler prediction_type 0 "v_prediction"/load',), 'base/whole/load'
    ),
    'types of the weights of a base': Check(
        'rass_mm.diffusion.base_weights.check_types', ('base/unet weights int8/load',), 'base/whole/load'
    ),
    'values of the weights of a base': Check(
        'rass_mm.diffusion.base_loading._check_values',
        ('base/unet weights one nan/load', 'base/vae weights all zero/load'),
        'base/whole/load',
    ),
    'memory': Check(
        'rass_mm.devices.check_memory',
        ('cmdline/benchmark/size 999936x999936', 'cmdline/benchmark/batch that is too large'),
        'cmdline/benchmark/threads',
        BROKE,
    ),
    'devices': Check(
        'rass_mm.devices.chosen_device',
        ('cmdline/device cpu:x/benchmark',),
        'cmdline/benchmark/threads',
        BROKE,
        _device,
    ),
    'range of seeds': Check(
        'rass_mm.cli.options.seed', ('cmdline/seed -1/make-lq',), 'cmdline/seed 1/make-lq', instead=int
    ),
    'range of numbers of steps': Check(
        'rass_mm.cli.options.count',
        ('cmdline/iterations 0/benchmark', 'cmdline/iterations -1/benchmark'),
        'cmdline/iterations 1/benchmark',
        BROKE,
        int,
    ),
    'errors of files': Check(
        'rass_mm.cli.os_errors.explain_os_error',
        ('cmdline/output below a file/train',),
        'cmdline/report/title',
        BROKE,
    ),
    'folders of images': Check(
        'rass_mm.datasets.preflight._check_images',
        ('labels/img_dir no folder/train', 'labels/img_lq no folder/test'),
        'labels/compressed/test',
        UNNAMED,
    ),
    'folders of labels': Check(
        'rass_mm.datasets.preflight.check_labels',
        ('labels/ann_dir no folder/train', 'labels/ann_dir no folder/test'),
        'labels/compressed/test',
        UNNAMED,
    ),
    'lists of images': Check(
        'rass_mm.datasets.preflight._check_list',
        ('labels/list empty/test', 'labels/list binary/train'),
        'labels/list one image/test',
        UNNAMED,
    ),
    'lossy labels': Check(
        'rass_mm.datasets.labels.is_lossy',
        ('labels/JPEG of one class/test', 'labels/JPEG of one class/check-data'),
        'labels/compressed/test',
        instead=lambda *_: False,
    ),
    'ids of labels': Check(
        'rass_mm.datasets.loading.LoadLabelStrict._check_ids',
        ('labels/ids out of range/test',),
        'labels/compressed/test',
    ),
    'size of labels': Check(
        'rass_mm.datasets.loading.LoadLabelStrict._check_size',
        ('labels/too small/train',),
        'labels/compressed/test',
    ),
    'size of labels in check-data': Check(
        'rass_mm.datasets.check.findings._mismatches',
        ('labels/too small/check-data',),
        'labels/compressed/check-data',
        instead=_nothing,
    ),
    'turned labels': Check(
        'rass_mm.files.orientation.turn_label',
        ('images/JPEG EXIF of the same size/test', 'images/JPEG EXIF of the same size/check-data'),
        'labels/compressed/test',
        instead=lambda *_: False,
    ),
}


@functools.cache
def _cases() -> dict[str, Case]:
    return {case.name: case for case in all_cases()}


def _remove(check: Check, patch: pytest.MonkeyPatch) -> None:
    """Replaces a check where it is defined, in all modules that imported it by name, and in their tuples of checks."""
    found = pkgutil.resolve_name(check.place)
    patch.setattr(check.place, check.instead)
    for name, module in list(sys.modules.items()):
        for key, value in list(vars(module).items()) if name.startswith('rass_mm') else ():
            if value is found:
                patch.setattr(module, key, check.instead)
            elif isinstance(value, tuple) and any(item is found for item in value):
                patch.setattr(module, key, tuple(check.instead if item is found else item for item in value))


@pytest.mark.parametrize('check', CHECKS.values(), ids=CHECKS)
def test_checks_and_their_cases_are_found(check):
    assert pkgutil.resolve_name(check.place) != check.instead
    assert {check.valid, *check.wrong} <= set(_cases())


@pytest.mark.slow
@pytest.mark.parametrize('check', CHECKS.values(), ids=CHECKS)
def test_cases_are_wrong_without_the_check(check, kit, tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))  # for what is downloaded without a check

    def faults(name: str) -> list[str]:
        return server.run_case(_cases()[name], kit, tmp_path / 'case')[1]

    names = (check.valid, *check.wrong)
    assert not {name: found for name in names if (found := faults(name))}
    _remove(check, monkeypatch)
    without = {name: faults(name) for name in names}
    assert not without.pop(check.valid)
    assert all(any(check.fault in fault for fault in found) for found in without.values()), without
