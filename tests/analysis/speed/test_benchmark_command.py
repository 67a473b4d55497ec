"""Benchmark from the command line: segmentor, released path, half precision and restorer on the tiny base."""

import json
import re
import statistics

import pytest
import torch
from commands import warm

RASS, SCR = 'rass/rass_scenes_tiny.py', 'scr/scr_scenes_tiny.py'
NUMBER = (int, float)

pytestmark = pytest.mark.slow  # every variant of a whole benchmark


@pytest.fixture(scope='module')
def ran(tmp_path_factory, tiny_base):
    """Output folder and standard output of a run with four variants of two passes each."""
    out = tmp_path_factory.mktemp('benchmark')
    done = warm(
        *('tools/benchmark.py', RASS, '--size', '64x96', '--iterations', 2, '--warmup', 1, '--batch', 2),
        *('--windows', 2, '--threads', 1, '--seed', 3, '--out', out, '--variant', 'released'),
        *('--variant', f'half: {RASS} dtype=bfloat16'),
        *('--variant', f'scr: {SCR} model.base={tiny_base} model.test_cfg.window=64'),
        *('--cfg-options', f'model.backbone.base={tiny_base}', 'model.test_cfg.mode=slide'),
        *('model.test_cfg.crop_size=(64,64)', 'model.test_cfg.stride=(32,32)'),
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return out, done.stdout


@pytest.fixture(scope='module')
def record(ran):
    """JSON record of this run."""
    return json.loads((ran[0] / 'benchmark.json').read_text())


def by_name(record):
    return {variant['name']: variant for variant in record['variants']}


def test_record_says_what_was_run_and_where(record):
    assert record['kind'] == 'benchmark' and record['schema'] == 1
    assert record['command'].startswith('python tools/benchmark.py rass/rass_scenes_tiny.py')
    assert (record['seed'], record['size'], record['batch'], record['iterations']) == (3, [64, 96], 2, 2)
    where = record['environment']
    assert where['threads'] == 1 and where['torch'] == torch.__version__
    assert where['device_name'] and where['versions']['rass_mm']
    assert record['ceiling'].keys() == {'float32', 'bfloat16'}
    for rates in record['ceiling'].values():
        assert rates['convolution'] == max(v for name, v in rates['shapes'].items() if name.startswith('conv')) > 0


def test_variants_say_how_they_were_run(record):
    assert [variant['name'] for variant in record['variants']] == ['rass_scenes_tiny', 'released', 'half', 'scr']
    found = by_name(record)
    first, released, half, scr = found.values()
    assert first['test_cfg']['mode'] == 'slide' and first['test_cfg']['window_batch'] == 2
    assert released['released'] and released['test_cfg']['mode'] == 'stitched'
    assert released['test_cfg']['window_batch'] == 1 and released['dtype'] == 'float32'
    assert any('tagger' in note for note in released['notes'])
    assert (half['dtype'], half['channels_last'], half['compile']) == ('bfloat16', None, False)
    assert scr['config'] == SCR and scr['test_cfg']['window_batch'] == 2
    assert all(any('fresh weights' in note for note in variant['notes']) for variant in found.values())


@pytest.mark.parametrize(
    ('name', 'stages'),
    [
        *((name, ['prompt', 'encode', 'UNet', 'neck', 'head', 'other']) for name in ('rass_scenes_tiny', 'half')),
        ('scr', ['prompt', 'encode', 'UNet', 'decode', 'other']),
    ],
)
def test_stages_sum_to_the_total(record, name, stages):
    variant = by_name(record)[name]
    assert list(variant['stages']) == stages
    seconds = [stage['seconds'] for stage in variant['stages'].values()]
    assert sum(seconds) == pytest.approx(variant['staged_seconds'], rel=1e-6)
    assert sum(stage['share'] for stage in variant['stages'].values()) == pytest.approx(1)
    passes = zip(*(stage['per_iteration'] for stage in variant['stages'].values()), strict=True)
    assert statistics.median(map(sum, passes)) == pytest.approx(variant['staged_seconds'], rel=1e-6)
    operations = [stage['tflop_per_image'] for stage in variant['stages'].values()]
    assert sum(operations) == pytest.approx(variant['tflop_per_image'])
    assert all(variant['stages'][stage]['tflop_per_image'] > 0 for stage in stages if stage not in ('prompt', 'other'))
    assert variant['stages']['UNet']['share_of_matmul'] == pytest.approx(
        variant['stages']['UNet']['tflops'] / record['ceiling'][variant['dtype']]['matmul']
    )


def test_figures_follow_from_the_raw_seconds(record):
    first = record['variants'][0]
    for variant in record['variants']:
        seconds = variant['seconds']
        assert len(seconds['per_iteration']) == 2 and seconds['median'] == statistics.median(seconds['per_iteration'])
        assert seconds['low'] <= seconds['median'] <= seconds['high']
        assert variant['images_per_second'] == pytest.approx(2 / seconds['median'])
        assert variant['tflops'] == pytest.approx(2 * variant['tflop_per_image'] / seconds['median'])
    assert [ratio['variant'] for ratio in record['ratios']] == ['released', 'half', 'scr']
    for ratio, variant in zip(record['ratios'], record['variants'][1:], strict=True):
        pairs = zip(first['seconds']['per_iteration'], variant['seconds']['per_iteration'], strict=True)
        assert ratio['per_iteration'] == pytest.approx([mine / own for mine, own in pairs])
        assert ratio['reference'] == 'rass_scenes_tiny'
        assert ratio['median'] == pytest.approx(statistics.median(ratio['per_iteration']))


def test_the_same_windows_cost_the_same_operations_in_any_dtype(record):
    first, released, half, _ = record['variants']
    assert half['tflop_per_image'] == pytest.approx(first['tflop_per_image'])
    # A 64x96 image has two windows of 64 at stride 32; the released scheme also has two windows of the short side.
    for stage in ('encode', 'neck'):
        assert released['stages'][stage]['tflop_per_image'] == first['stages'][stage]['tflop_per_image']
    # The first variant is prepared: its LoRA is merged, and the keys and values of the prompt are stored.
    ratio = released['stages']['UNet']['tflop_per_image'] / first['stages']['UNet']['tflop_per_image']
    assert 1.02 < ratio < 1.5 and (first['prepared'], released['prepared']) == (True, False)
    # One head pass over stitched features instead of one per window.
    assert released['stages']['head']['tflop_per_image'] < first['stages']['head']['tflop_per_image']


def test_memory_and_parameters(record):
    first, released, half, scr = record['variants']
    assert first['parameters'] == half['parameters']
    for count in ('all', 'running'):
        assert released['parameters'][count] > first['parameters'][count]
    assert released['parameters']['trained'] == first['parameters']['trained']
    for variant in record['variants']:
        memory, counts = variant['memory'], variant['parameters']
        assert 0 < counts['trained'] < counts['running'] <= counts['all']
        assert memory['peak_bytes'] == memory['weights_bytes'] + memory['pass_bytes']
    assert first['memory']['weights_bytes'] >= 4 * first['parameters']['all']
    assert half['memory']['weights_bytes'] < 0.7 * first['memory']['weights_bytes']
    assert scr['parameters']['running'] < scr['parameters']['all']  # conv_in of the base runs only with a critic


def test_tables_show_every_variant_and_stage(ran, record):
    out, printed = ran
    text = (out / 'benchmark.md').read_text()
    assert text.strip() in printed
    for variant in record['variants']:
        assert f'## Stages of {variant["name"]}' in text
        assert re.search(rf'^\| {variant["name"]} +\|.* {variant["images_per_second"]:.4g} \|', text, re.MULTILINE)
    assert '* released: the released path without its tagger' in text
    assert f'`{record["command"]}`' in text


def test_every_number_of_the_record_is_finite(record):
    def numbers(value):
        if isinstance(value, dict):
            return [found for item in value.values() for found in numbers(item)]
        if isinstance(value, list):
            return [found for item in value for found in numbers(item)]
        return [value] if isinstance(value, NUMBER) else []

    found = numbers(record)
    assert len(found) > 200 and all(abs(number) < float('inf') for number in found)
