"""The light installation: `rass-mm` in an environment that has only what `pip install rass_mm` brings."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_layouts import restorer_file
from commands import ROOT, run
from light_environment import light, light_environment
from PIL import Image
from release.locks import closure
from tiny_segmentors import shipped, write_checkpoint
from torch import nn

from rass_mm.diffusion.base import read_base
from rass_mm.diffusion.base_loading import load_unet, load_vae
from rass_mm.inference.segmentor import Segmentor
from rass_mm.inference.steps import PlainPipeline, is_plain
from rass_mm_cli import extras
from rass_mm_cli.main import main
from rass_mm_cli.table import COMMANDS

OPENMMLAB = {'mmengine', 'mmcv', 'mmseg', 'mmdet', 'mmagic'}
IMPORTED = """
import json, sys
from rass_mm_cli.main import main
status = main(sys.argv[2:])
json.dump(sorted({name.partition('.')[0] for name in sys.modules}), open(sys.argv[1], 'w'))
sys.exit(status)
"""
"""Runs a command and writes the names of the imported top-level packages to a file."""


@pytest.fixture(scope='module')
def python(tmp_path_factory):
    """Interpreter of a light environment with the runtimes of exported models."""
    runtimes = ['openvino', 'onnx', 'onnxscript', 'onnxruntime']
    return light_environment(tmp_path_factory.mktemp('light') / 'env', runtimes)


@pytest.fixture(scope='module')
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp('photos') / 'photo.png'
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (150, 200, 3), np.uint8)).save(path)
    return path


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp('plain') / 'plain.pth', shipped('baselines/resnet_scenes_tiny.py'))


def imported(python, out, *command):
    """Runs a command in the light environment. Returns the imported top-level packages."""
    done = run(python, '-c', IMPORTED, out, *command)
    assert done.returncode == 0, done.stderr[-2000:]
    return set(json.loads(out.read_text()))


def test_the_light_requirements_bring_nothing_of_openmmlab():
    names = set(closure(['rass_mm']))
    assert {'torch', 'diffusers', 'opencv-python-headless', 'rich'} <= names
    assert not {name for name in names if name.startswith(('mm', 'onedl', 'openvino', 'ray', 'gradio'))}
    assert 'mmcv' in closure(['rass_mm'], ['segmentation']) and 'mmagic' in closure(['rass_mm'], ['all'])


@pytest.mark.slow
def test_restoring_uses_the_shipped_base_and_imports_nothing_of_openmmlab(python, photo, tmp_path):
    code = (
        'import sys; from rass_mm.diffusion.base import read_base\n'
        'from rass_mm.demo.base.shipped import shipped_base\n'
        'from rass_mm.diffusion.one_step_restorer import OneStepRestorer; base = read_base(shipped_base())\n'
        'OneStepRestorer(base).save(sys.argv[1], base.identity, "ClassTokens", ["sky", "car"]); print(base.folder)'
    )
    done = run(python, '-c', code, tmp_path / 'scr.safetensors')
    assert done.returncode == 0, done.stderr[-2000:]
    given = ('--adapter', tmp_path / 'scr.safetensors', '--base', done.stdout.strip())
    names = imported(python, tmp_path / 'names', 'restore', photo, tmp_path / 'out', *given)
    assert 'diffusers' in names and not names & OPENMMLAB
    assert Image.open(tmp_path / 'out' / 'photo.png').size == (200, 150)
    names = imported(python, tmp_path / 'names', 'attention', photo, '--out', tmp_path / 'maps', *given)
    assert not names & OPENMMLAB and list((tmp_path / 'maps').glob('*.png'))
    predict = 'import sys, rass_mm; rass_mm.load_restorer(*sys.argv[1:3]).predict(sys.argv[3]).save(sys.argv[4])'
    done = run(python, '-c', predict, given[1], given[3], photo, tmp_path / 'python.png')
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_published_restorers_are_converted_as_by_the_full_installation(python, tiny_base, tmp_path):
    base = read_base(tiny_base)
    torch.save(restorer_file(load_unet(base), load_vae(base, decoder=True)), tmp_path / 'osediff.pkl')
    given = ('convert', tmp_path / 'osediff.pkl')
    names = imported(python, tmp_path / 'names', *given, tmp_path / 'light.safetensors', '--base', tiny_base)
    assert not names & OPENMMLAB
    assert main([str(part) for part in (*given, tmp_path / 'full.safetensors', '--base', tiny_base)]) == 0
    one, other = ((tmp_path / f'{name}.safetensors').read_bytes() for name in ('light', 'full'))
    assert one == other and len(one) > 10_000


@pytest.mark.slow
@pytest.mark.parametrize('form', ['openvino', 'onnx'])
def test_exported_segmentors_run_and_give_the_labels_of_the_full_installation(
    python, photo, checkpoint, tmp_path, form
):
    exported = tmp_path / 'exported'
    assert main(['export', str(checkpoint), str(exported), '--format', form, '--window', '96']) == 0
    given = ('segment', photo, '--checkpoint', exported, '--backend', form, '--confidence')
    names = imported(python, tmp_path / 'names', given[0], photo, tmp_path / 'light', *given[2:])
    assert not names & OPENMMLAB
    assert main([str(part) for part in ('segment', photo, tmp_path / 'full', *given[2:])]) == 0
    for kind in ('labels', 'overlays', 'confidence'):
        one, other = ((tmp_path / place / kind / 'photo.png').read_bytes() for place in ('light', 'full'))
        assert one == other, kind
    done = light(python, *given[:2], tmp_path / 'no', *given[2:], '--cfg-options', 'a=b')
    assert done.returncode == 2 and '--cfg-options needs optional packages' in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize('name', sorted(COMMANDS.keys() - {'doctor', 'random-base'}))
def test_each_command_runs_or_says_in_one_sentence_which_extra_it_needs(python, name, tmp_path):
    done = light(python, name, 'x', cwd=tmp_path)
    needed = extras.COMMANDS.get(name)
    if needed:
        assert done.returncode == 1 and done.stderr.startswith(f'error: rass-mm {name} needs optional packages')
        assert f'pip install "rass_mm[{",".join(needed)}]"' in done.stderr and done.stderr.count('\n') == 1
    else:
        assert 'optional packages' not in done.stderr and 'Traceback' not in done.stderr
        assert 'No module named' not in done.stderr


@pytest.mark.slow
def test_others_work_or_are_refused_in_a_sentence(python, scenes, checkpoint, photo, tmp_path):
    for command in (['fetch'], ['configs'], ['random-base', 'base', '--layout', 'scenes-tiny'], ['doctor'],
                    ['make-lq', scenes / 'img_dir' / 'val', 'lq', '--workers', '2']):  # fmt: skip
        done = light(python, *command, cwd=tmp_path)
        assert done.returncode == 0 and done.stdout, (command, done.stderr[-2000:])
    assert 'absent (only for rass_mm[segmentation])' in light(python, 'doctor').stdout
    done = light(python, 'segment', photo, tmp_path / 'out', '--checkpoint', checkpoint)
    assert done.returncode == 1 and 'rass-mm segment without --backend needs optional packages' in done.stderr
    for code in ('import rass_mm; rass_mm.load_segmentor', 'import rass_mm; rass_mm.register()'):
        done = run(python, '-c', code)
        assert done.returncode == 1 and 'InstallationError' in done.stderr and '[segmentation]' in done.stderr
    assert run(python, '-c', 'import rass_mm').returncode == 0


def test_one_package_of_openmmlab_makes_the_installation_an_incomplete_one(monkeypatch):
    monkeypatch.setattr('rass_mm_cli.families.is_installed', lambda name: name == 'onedl-mmengine')
    assert extras.has_segmentation() and extras.lacking('x') is None
    monkeypatch.setattr('rass_mm_cli.families.is_installed', lambda name: False)
    assert extras.lacking('rass-mm train').startswith('rass-mm train needs optional packages')
    assert extras.lacking('rass-mm fetch', ()) is None


class Plain(nn.Module):
    """Has the attributes of a segmentor that choose its windows."""

    data_preprocessor, test_cfg = None, None


PIPELINES = [
    [{'type': 'LoadImageFromFile'}, {'type': 'PackSegInputs'}],
    [{'type': 'LoadImageFromFile', 'to_float32': True}, {'type': 'mmseg.PackSegInputs'}],
    [{'type': 'LoadImageStrict'}, {'type': 'Resize', 'scale': (70, 300), 'keep_ratio': True},
     {'type': 'LoadLabelStrict', 'num_classes': 3}, {'type': 'PackSegInputs'}],
    [{'type': 'LoadImageFromFile'}, {'type': 'Resize', 'scale': (70, 41)}, {'type': 'PackSegInputs'}],
]  # fmt: skip


@pytest.mark.parametrize('steps', PIPELINES)
def test_plain_pipelines_give_the_values_of_mmseg(steps):
    image = np.random.default_rng(0).integers(0, 255, (61, 90, 3), np.uint8)
    assert is_plain(steps)
    found = PlainPipeline(steps)(image, 'photo.png')
    expected = Segmentor(Plain(), steps, ['a'], [(0, 0, 0)]).packed(image, 'photo.png')
    assert found['inputs'][0].dtype == expected['inputs'][0].dtype
    assert np.array_equal(found['inputs'][0], expected['inputs'][0])
    metas = expected['data_samples'][0].metainfo
    assert {key: metas[key] for key in ('img_path', 'ori_shape', 'img_shape')} == found['data_samples'][0].metainfo


@pytest.mark.parametrize(
    'steps',
    [
        [{'type': 'LoadImageFromFile'}],
        [{'type': 'LoadImageFromFile', 'imdecode_backend': 'pillow'}, {'type': 'PackSegInputs'}],
        [{'type': 'LoadImageFromFile', 'color_type': 'grayscale'}, {'type': 'PackSegInputs'}],
        [{'type': 'LoadImageFromFile'}, {'type': 'Resize', 'scale_factor': 2.0}, {'type': 'PackSegInputs'}],
        [{'type': 'LoadImageFromFile'}, {'type': 'Resize', 'scale': [0, 9]}, {'type': 'PackSegInputs'}],
        [{'type': 'LoadImageFromFile'}, {'type': 'RandomFlip'}, {'type': 'PackSegInputs'}],
        [{'type': 'os.system', 'command': 'true'}, {'type': 'PackSegInputs'}],
    ],
)
def test_other_pipelines_need_mmseg(steps):
    assert not is_plain(steps)


def test_an_import_of_openmmlab_in_the_core_breaks_the_contract(tmp_path):
    files = [ROOT / name for name in ('rass_mm', 'rass_mm_cli', 'experiments', 'pyproject.toml')]
    subprocess.run(['cp', '-r', *files, tmp_path], check=True)
    source = tmp_path / 'rass_mm' / 'files' / 'hashing.py'
    source.write_text(source.read_text().replace('import hashlib\n', 'import hashlib\n\nimport mmengine\n', 1))
    done = run(Path(sys.executable).with_name('lint-imports'), '--no-cache', cwd=tmp_path, env={'PYTHONPATH': tmp_path})
    assert done.returncode == 1 and 'the core imports nothing of OpenMMLab BROKEN' in done.stdout, done.stdout[-800:]
