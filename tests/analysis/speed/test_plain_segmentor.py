"""Configs without a diffusion base: a plain segmentor, alone and after a restorer."""

import json

import pytest

from rass_mm.analysis.speed import ceiling
from rass_mm.diffusion.base import read_base
from rass_mm.diffusion.one_step_restorer import OneStepRestorer
from rass_mm_cli.main import main

PLAIN, R2S = 'baselines/resnet_scenes_tiny.py', 'baselines/resnet_scenes_tiny_r2s.py'


@pytest.fixture(scope='module')
def record(tmp_path_factory, tiny_base):
    """Record of the plain segmentor alone and after a restorer, in two precisions."""
    folder = tmp_path_factory.mktemp('plain')
    base = read_base(tiny_base)
    OneStepRestorer(base).save(folder / 'scr.safetensors', base.identity, 'EmptyPrompt', ['road'])
    restorer = f'model.restorer.adapter={folder}/scr.safetensors model.restorer.base={tiny_base}'
    with pytest.MonkeyPatch.context() as quick:  # the measured limits of the device do not matter here
        quick.setattr(ceiling, 'SIDES', {'cpu': 64, 'cuda': 64})
        quick.setattr(ceiling, 'CONVOLUTIONS', ((8, 8),))
        status = main(
            [
                *(
                    'benchmark',
                    PLAIN,
                    '--size',
                    '64x64',
                    '--iterations',
                    '1',
                    '--warmup',
                    '1',
                    '--out',
                    str(folder),
                    '--windows',
                    '2',
                ),
                *('--variant', f'r2s: {R2S} {restorer} model.restorer.window=32'),
                *('--variant', f'half: {R2S} dtype=bfloat16 {restorer}'),
            ]
        )
    assert status == 0
    return json.loads((folder / 'benchmark.json').read_text())


def test_stages_of_both_are_distinguished(record):
    plain, restoring, half = record['variants']
    segmenting = ['backbone', 'head', 'other']
    assert list(plain['stages']) == segmenting
    restored = [f'restore: {stage}' for stage in ('prompt', 'encode', 'UNet', 'decode')]
    assert list(restoring['stages']) == list(half['stages']) == [*restored, *segmenting]
    for stage in ('backbone', 'head'):
        assert restoring['stages'][stage]['tflop_per_image'] == plain['stages'][stage]['tflop_per_image'] > 0


def test_restorer_counts_as_parameters_and_weights(record):
    plain, restoring, half = record['variants']
    assert restoring['parameters']['trained'] == plain['parameters']['trained'] == plain['parameters']['all']
    assert restoring['parameters']['all'] > restoring['parameters']['trained']
    assert half['memory']['weights_bytes'] < restoring['memory']['weights_bytes']


def test_windows_without_effect_are_noted(record):
    plain, restoring, half = record['variants']
    for variant, said in ((plain, True), (restoring, False), (half, True)):
        assert any('windows=2 has no effect' in note for note in variant['notes']) == said


def test_compilation_without_a_compiler_is_explained(monkeypatch, tmp_path, capsys):
    import torch._inductor.config

    monkeypatch.setenv('TORCHINDUCTOR_CACHE_DIR', str(tmp_path))  # no earlier compilation may be reused
    with torch._inductor.config.patch({'cpp.cxx': (None, '/no/compiler')}):
        options = ['--compile', '--size', '32x32', '--iterations', '1', '--warmup', '1', '--device', 'cpu']
        assert main(['benchmark', PLAIN, *options]) == 1
    message = capsys.readouterr().err
    assert 'torch.compile failed' in message and 'omit --compile' in message and 'Traceback' not in message
