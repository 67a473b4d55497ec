"""`rass-mm report` with records of real tests, and with synthetic records where a real test would take long."""

import copy
import json
import re

import pytest
import torch
from commands import python
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

import rass_mm
from rass_mm.analysis.report import claims
from rass_mm.analysis.report.claims import claimed, claimed_cost
from rass_mm.protocol import with_rule
from rass_mm_cli.main import main

BASELINE = 'baselines/resnet_scenes_tiny.py'
RASS = {
    'kind': 'test',
    'config': '/checkout/configs/rass/rass_ade20k_lq.py',
    'tta': False,
    'seed': 3,
    'dataset': 'ADE20KLQDataset',
    'data_root': 'data/ade/ADEChallengeData2016',
    'data': {'img_path': 'images_lq/validation', 'seg_map_path': 'annotations/validation'},
    'images': 2000,
    'protocol': 'mIoU over 2000 images',
    'command': 'python tools/test.py rass/rass_ade20k_lq.py rass.pth',
    'device': 'cuda (NVIDIA H100)',
    'versions': {'rass_mm': '0.1.0', 'torch': '2.11.0', 'peft': '0.21.2'},
    'metrics': {'aAcc': 81.234, 'mIoU': 46.555, 'mAcc': 60.0},
}
OSEDIFF = {
    **RASS,
    'config': 'configs/scr/pairs_as_they_are.py',
    'dataset': 'mmagic.BasicImageDataset',
    'data_root': '/data/DRealSR',
    'data': {'img': 'osediff', 'gt': 'gt'},
    'images': 93,
    'seed': 0,
    'protocol': 'Image quality over 93 images',
    'command': 'python tools/test.py scr/pairs_as_they_are.py',
    'metrics': {'PSNR': 27.915, 'SSIM': 0.78349, 'NIQE': 6.49},
}
SCR = {
    **OSEDIFF,
    'config': 'configs/scr/scr_ade20k_pairs.py',
    'data': {'img': 'lq', 'gt': 'gt'},
    'mode': 'restore',
    'command': 'python tools/test.py scr/scr_ade20k_pairs.py scr.pth',
    'metrics': {'PSNR': 28.0, 'SSIM': 0.8, 'input_PSNR': 30.54, 'input_SSIM': 0.8302},
}
CURVE = {
    'format': 'rass_mm robustness curve, 1',
    'name': 'rass',
    'config': 'rass/rass_scenes_tiny.py',
    'seed': 0,
    'data': {'type': 'ScenesDataset', 'root': '/a/scenes', 'img_path': 'img_dir/val', 'images': 4, 'classes': ['sky']},
    'runs': [{'command': 'rass-mm robustness a b', 'device': 'cpu', 'versions': {'rass_mm': '0.1.0'}}],
    'points': [
        {'kind': 'clean', 'severity': None, 'mIoU': 20.0, 'run': 0},
        {'kind': 'blur', 'severity': 1.0, 'mIoU': 5.125, 'run': 0},
        {'kind': 'blur', 'severity': 0.5, 'mIoU': 12.5, 'run': 0},
    ],
}


def variant(name, config, seconds, **stages):
    """Returns a variant of a benchmark record with the keys that a report reads."""
    return {
        'name': name,
        'config': config,
        'images_per_second': 1 / seconds,
        'seconds': {'median': seconds},
        'stages': {stage: {'seconds': part * seconds, 'share': part} for stage, part in stages.items()},
        'memory': {'peak_bytes': 2**31},
        'parameters': {'all': 1_700_000_000, 'trained': 27_905_063},
    }


BENCHMARK = {
    'kind': 'benchmark',
    'command': 'rass-mm benchmark rass/rass_ade20k_lq.py',
    'seed': 0,
    'size': [512, 683],
    'batch': 1,
    'iterations': 10,
    'environment': {'device': 'cuda', 'device_name': 'NVIDIA H100', 'threads': 8, 'versions': {'torch': '2.11.0'}},
    'variants': [
        variant('released', 'rass/rass_ade20k_lq.py', 0.5, encode=0.25, UNet=0.5, other=0.25),
        variant('bf16', 'rass/rass_scenes_tiny.py', 0.125, UNet=0.5, head=0.25, other=0.25),
    ],
    'ratios': [{'variant': 'bf16', 'reference': 'released', 'median': 4.0}],
}


@pytest.fixture
def reported(tmp_path, capsys):
    """Function that writes records ({name: content}), runs the command and returns (status, out, err)."""

    def run(*arguments, **records):
        for name, content in records.items():
            write(tmp_path / name / 'metrics.json', content)
        status = main(['report', *(str(argument) for argument in arguments or [tmp_path])])
        return (status, *capsys.readouterr())

    return run


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def tables(text):
    """Parses each table into a list of rows, each {header: cell}."""
    found = []
    for block in re.findall(r'(?:^\|.*\n)+', text, re.M):
        lines = [[cell.strip() for cell in re.split(r'(?<!\\)\|', line)[1:-1]] for line in block.splitlines()]
        found.append([dict(zip(lines[0], line, strict=True)) for line in lines[2:]])
    return found


def test_record_of_a_real_test_becomes_a_row(scenes, tmp_path, capsys):
    config = Config.fromfile(str(rass_mm.config_path(BASELINE)))
    init_default_scope('mmseg')
    torch.manual_seed(0)
    torch.save({'state_dict': MODELS.build(config.model).state_dict()}, tmp_path / 'drawn.pth')
    done = python(
        # The checkpoint follows an option, which argparse of older Python versions rejects.
        *('tools/test.py', BASELINE, '--work-dir', tmp_path / 'work', tmp_path / 'drawn.pth', '--cfg-options'),
        f'test_dataloader.dataset.data_root={scenes}',
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    record = json.loads((tmp_path / 'work' / 'metrics.json').read_text())
    assert record['images'] == 4 and record['kind'] == 'test' and record['checkpoint'] == str(tmp_path / 'drawn.pth')
    assert main(['report', f'one | two={tmp_path / "work"}', '--out', str(tmp_path / 'sub' / 'r.md')]) == 0
    assert f'{tmp_path}/sub/r.md: 1 records' in capsys.readouterr().out
    text = (tmp_path / 'sub' / 'r.md').read_text()
    ((row,),) = tables(text)
    metrics = {name: f'{record["metrics"][name]:.2f}' for name in ('mIoU', 'aAcc', 'mAcc')}
    assert row == {'system': 'one \\| two', **metrics, 'seed': '0', 'command': '1'}
    command = f'python tools/test.py {BASELINE} --work-dir {tmp_path}/work {tmp_path}/drawn.pth --cfg-options '
    assert f'1. `{command}test_dataloader.dataset.data_root={scenes}`, {record["device"]}, rass_mm ' in text
    assert text.startswith('# Results\n\nmIoU, aAcc and mAcc (%) over all pixels of 4 images of scenes/img_lq/val')


def test_claimed_values_stand_apart_from_measured_ones(reported):
    other = {**RASS, 'config': 'rass_scenes_tiny.py', 'command': 'x', 'metrics': {'aAcc': 1, 'mIoU': 2, 'mAcc': 3}}
    _, text, _ = reported(a=RASS, b=other)
    ((known, unknown),) = tables(text)
    assert known == {
        **{'system': 'rass_ade20k_lq', 'mIoU': f'{46.555:.2f}', 'mIoU claimed': '47.42', 'aAcc': '81.23'},
        **{'mAcc': '60.00', 'seed': '3', 'command': '1'},
    }
    assert unknown['mIoU'] == '2.00' and unknown['mIoU claimed'] == ''
    assert 'Claimed: Guan et al., arXiv 2602.14042 (IJCV 134(5):229, 2026). Not measured here.' in text
    _, text, _ = reported(a=other, b={**other, 'seed': 4})
    assert 'laimed' not in text


def test_each_protocol_has_its_own_table(reported):
    clean = {**RASS, 'protocol': 'mIoU over clean images', 'data': {'img_path': 'images/validation'}}
    _, text, _ = reported(a=RASS, b=clean, c=OSEDIFF, d={**RASS, 'seed': 4})
    first, second, third = tables(text)
    assert [row['seed'] for row in first] == ['3', '4'] and len(second) == len(third) == 1
    order = [text.index(f'\n{RASS["protocol"]}.\n'), text.index('\nmIoU over clean images.\n'), text.index('\nImage')]
    assert order == sorted(order)
    assert [row['system'] for row in first] == ['rass_ade20k_lq (a)', 'rass_ade20k_lq (d)']


def test_tests_of_another_mean_have_their_own_table_and_older_records_have_mmsegs_mean(reported):
    older = {**RASS, 'protocol': "mIoU, aAcc and mAcc (%) over all pixels of 4 images of x at the labels' size"}
    rules = [with_rule(older['protocol'], rule) for rule in ('all', 'present')]
    present = {**RASS, 'protocol': rules[1], 'metrics': {**RASS['metrics'], 'classes': 60.0}}
    _, text, _ = reported(a=older, b={**RASS, 'protocol': rules[0], 'seed': 4}, c=present)
    first, second = tables(text)
    assert [row['seed'] for row in first] == ['3', '4'] and 'classes' not in first[0]
    assert [row['classes'] for row in second] == ['60']
    assert text.index('mIoU over classes with labelled or predicted') < text.index(
        'mIoU over classes with labelled pix'
    )


def test_restoration_has_one_row_for_the_input(reported):
    second = {**SCR, 'seed': 1, 'metrics': {**SCR['metrics'], 'PSNR': 27.0, 'attention_ratio': 0.25}}
    _, text, _ = reported(a=SCR, b=second, c=OSEDIFF, d={**SCR, 'mode': 'ceiling'})
    (rows,) = tables(text)
    assert [row['system'] for row in rows] == [
        *(
            'input',
            'scr_ade20k_pairs (a)',
            'scr_ade20k_pairs (b)',
            'pairs_as_they_are, osediff',
            'scr_ade20k_pairs, ceiling',
        )
    ]
    given, _, _, theirs, _ = rows
    assert (given['PSNR'], given['SSIM'], given['NIQE'], given['command']) == ('30.54', '0.8302', '', '')
    assert (theirs['PSNR'], theirs['PSNR claimed']) == (f'{27.915:.2f}', '27.92')
    assert (theirs['SSIM'], theirs['SSIM claimed'], theirs['NIQE claimed']) == ('0.7835', '.7835', '6.4902')
    assert not any('input_' in header for header in given) and rows[2]['attention_ratio'] == '0.2500'
    assert 'arXiv 2406.08177. Not measured here.' in text


def test_input_scores_of_other_images_are_not_merged(reported):
    other = {**SCR, 'seed': 1, 'metrics': {**SCR['metrics'], 'input_PSNR': 29.0}}
    _, text, _ = reported(a=SCR, b=other)
    assert [row['PSNR'] for row in tables(text)[0] if row['system'] == 'input'] == ['30.54', '29.00']


def test_benchmark_has_a_table_of_variants_and_one_of_stages(reported, tmp_path):
    status, text, _ = reported(write(tmp_path / 'bench' / 'benchmark.json', BENCHMARK), '--title', 'Speed')
    variants, stages = tables(text)
    assert status == 0 and text.startswith('# Speed\n\nSpeed on cuda (NVIDIA H100), 8 CPU threads: 1 random images of ')
    assert variants[0] == {
        **{'variant': 'released', 'images/s': '2', 'images/s claimed': '3.4', 'seconds': '0.5'},
        **{'times as fast': 'reference', 'peak (GiB)': '2.00', 'parameters (M)': '1700.00'},
        **{'parameters (M) claimed': '1788.7M', 'trained (M)': '27.91', 'trained (M) claimed': '27.9M'},
        **{'seed': '0', 'command': '1'},
    }
    assert (variants[1]['times as fast'], variants[1]['images/s claimed']) == ('4', '')
    assert [*stages[0]] == ['variant', 'encode', 'UNet', 'head', 'other']
    assert stages[0]['UNet'] == '0.25 (50%)' and stages[0]['head'] == '' and stages[1]['encode'] == ''
    assert '1. `rass-mm benchmark rass/rass_ade20k_lq.py`, torch 2.11.0' in text


def test_parameters_that_were_not_counted_are_empty_cells(reported, tmp_path):
    record = copy.deepcopy(BENCHMARK)
    record['variants'][1]['parameters'] = {}
    counted, exported = tables(reported(write(tmp_path / 'b.json', record))[1])[0]
    assert (counted['parameters (M)'], exported['parameters (M)'], exported['trained (M)']) == ('1700.00', '', '')
    record['variants'][1]['parameters'] = {'all': 1}
    status, _, error = reported(write(tmp_path / 'b.json', record))
    assert status == 1 and 'the key variants.1.parameters.trained is missing' in ' '.join(error.split())


def test_record_of_a_real_benchmark_becomes_rows(reported, tmp_path):
    options = ['--size', '64x64', '--iterations', '1', '--warmup', '1', '--device', 'cpu', '--out', str(tmp_path / 'b')]
    assert main(['benchmark', BASELINE, '--variant', f'half: {BASELINE} dtype=bfloat16', *options]) == 0
    variants, stages = tables(reported(tmp_path / 'b')[1].partition('# Results')[2])
    measured = json.loads((tmp_path / 'b' / 'benchmark.json').read_text())['variants']
    assert [row['variant'] for row in variants] == [entry['name'] for entry in measured] and len(measured) == 2
    for row, entry in zip(variants, measured, strict=True):
        assert float(row['images/s']) == pytest.approx(entry['images_per_second'], rel=1e-3)
    assert [*stages[0]] == ['variant', 'backbone', 'head', 'other']


def test_benchmarks_of_one_device_and_size_share_a_table(reported, tmp_path):
    larger = {**BENCHMARK, 'size': [1024, 1024]}
    again = {**BENCHMARK, 'command': 'rass-mm benchmark again'}
    files = [
        write(tmp_path / n / 'b.json', content) for n, content in zip('xyz', (BENCHMARK, larger, again), strict=True)
    ]
    _, text, _ = reported(files[0], files[1], f'again={files[2]}')
    found = tables(text)
    assert [row['variant'] for row in found[0]] == ['x: released', 'x: bf16', 'again: released', 'again: bf16']
    assert [row['command'] for row in found[0]] == ['1', '1', '2', '2'] and len(found) == 4


def test_robustness_has_a_table_per_degradation(reported, tmp_path):
    other = copy.deepcopy({**CURVE, 'name': 'baseline', 'runs': CURVE['runs'] * 2})
    other['points'][2]['kind'] = 'jpeg'
    _, text, _ = reported(write(tmp_path / 'rass.json', CURVE), write(tmp_path / 'baseline.json', other))
    blur, jpeg = tables(text)
    assert blur[0] == {'system': 'rass', 'clean': '20.00', '0.5': '12.50', '1': f'{5.125:.2f}', 'command': '1'}
    assert blur[1] == {'system': 'baseline', 'clean': '20.00', '0.5': '', '1': f'{5.125:.2f}', 'command': '2, 3'}
    assert jpeg[1] == {'system': 'baseline', 'clean': '20.00', '0.5': '12.50', 'command': '2, 3'}
    assert 'over all pixels of 4 images of scenes/img_dir/val (ScenesDataset), one degradation' in text


def test_robustness_of_another_mean_has_its_own_table(reported, tmp_path):
    other = {**CURVE, 'name': 'present', 'settings': {'evaluator': {'mean_over': 'present'}}}
    _, text, _ = reported(write(tmp_path / 'rass.json', CURVE), write(tmp_path / 'other.json', other))
    assert [[row['system'] for row in table] for table in tables(text)] == [['rass'], ['present']]
    assert text.count('(ScenesDataset), mean over classes with labelled pixels, one degradation') == 1


def test_folders_are_searched_and_other_json_is_left_alone(reported, tmp_path):
    write(tmp_path / 'vis_data' / 'scalars.json', '{"lr": 1}\n{"lr": 2}\n')
    write(tmp_path / 'data' / 'manifest.json', {'kind': 'something else'})
    write(tmp_path / 'deep' / 'er' / 'benchmark.json', BENCHMARK)
    write(tmp_path / 'curves' / 'rass.json', CURVE)
    status, text, _ = reported(tmp_path, a=RASS, b=OSEDIFF)
    assert status == 0 and len(tables(text)) == 5


def test_name_labels_a_row_and_every_row_of_a_folder(reported, tmp_path):
    _, text, _ = reported(f'Ours={write(tmp_path / "a" / "metrics.json", RASS)}')
    assert tables(text)[0][0]['system'] == 'Ours'
    write(tmp_path / 'b' / 'metrics.json', {**RASS, 'seed': 9})
    _, text, _ = reported(f'Ours={tmp_path}')
    assert [row['system'] for row in tables(text)[0]] == ['Ours: a', 'Ours: b']
    odd = write(tmp_path / 'lr=1' / 'metrics.json', {**RASS, 'seed': 10})  # a path may hold an equals sign
    _, text, _ = reported(odd)
    assert tables(text)[0][0]['system'] == 'rass_ade20k_lq'


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{"kind": "test", "metr', 'cannot be read as JSON'),
        ('[1, 2]', 'has the kind None, but a report supports only test, robustness, benchmark'),
        ({**RASS, 'kind': 'tset'}, "has the kind 'tset', but a report supports only"),
        (
            {key: value for key, value in RASS.items() if key != 'protocol'},
            "of kind 'test': the key protocol is missing",
        ),
        ('\xff', 'cannot be read as JSON'),
    ],
)
def test_records_that_cannot_be_used_are_named(content, message, reported, tmp_path):
    status, text, error = reported(a=RASS, bad=content)
    assert status == 1 and not text
    assert f'{tmp_path}/bad/metrics.json' in error and message in error


def test_damaged_benchmark_in_a_folder_is_named(reported, tmp_path):
    write(tmp_path / 'b.json', json.dumps(BENCHMARK)[:-20])
    status, _, error = reported(a=RASS)
    assert status == 1 and f'{tmp_path}/b.json cannot be read as JSON' in error


def test_records_given_twice_are_refused(reported, tmp_path):
    file = write(tmp_path / 'a' / 'metrics.json', RASS)
    status, _, error = reported(tmp_path, file)
    assert status == 1 and f'{file} is given twice' in error
    status, _, error = reported(copy=RASS)
    assert status == 1 and f'{tmp_path}/copy/metrics.json is a copy of {file}' in error


@pytest.mark.parametrize('empty', [True, False])
def test_places_without_records_are_refused(empty, reported, tmp_path):
    place = tmp_path / 'place'
    if empty:
        place.mkdir()
    status, _, error = reported(place)
    assert status == 1 and f'{place} {"contains no record files" if empty else "does not exist"}' in error


@pytest.mark.parametrize(
    ('stem', 'kind', 'value'),
    [
        ('rass_ade20k_lq', 'ADE20KLQDataset', '47.42'),
        ('rass_ade20k_lq_official', 'ADE20KLQDataset', '47.42'),
        ('rass_ade20k_lq', 'RealLQDataset', '39.80'),
        ('mask2former_swin_l_ft_ade20k_lq', 'ADE20KLQDataset', '44.19'),
        ('mask2former_swin_l_r2s_reallq', 'RealLQDataset', '34.83'),
        ('segformer_b5_dt_ade20k_lq', 'ADE20KLQDataset', '26.37'),
        ('segformer_b0_dt_ade20k_lq', 'ADE20KLQDataset', None),  # the paper uses the large variant
        ('rass_scenes_tiny', 'ScenesDataset', None),
    ],
)
def test_claims_go_with_config_and_data(stem, kind, value):
    record = {**RASS, 'config': f'{stem}.py', 'dataset': kind}
    assert claimed(record)[0] == ({'mIoU': value} if value else {})


def test_part_of_the_data_or_clean_data_has_no_claim():
    assert not claimed({**RASS, 'images': 100})[0] and not claimed({**OSEDIFF, 'images': 20})[0]
    assert not claimed({**RASS, 'dataset': 'ADE20KDataset', 'data': {'img_path': 'images/validation'}})[0]
    assert not claimed({**SCR, 'mode': 'ceiling', 'data_root': 'RealSR', 'images': 100})[0]
    assert claimed({**SCR, 'data_root': 'RealSR', 'images': 100})[0] == {'PSNR': '25.34'}
    assert (
        claimed({**SCR, 'config': 'osediff_sd21_pairs.py', 'data_root': 'realsr', 'images': 100})[0]['NIQE'] == '5.6476'
    )


def test_claims_refer_to_existing_configs():
    stems = {path.stem for path in rass_mm.config_path().rglob('*.py')}
    for begin in claims.SEGMENTORS:
        assert any(claimed_cost(stem) for stem in stems if stem.startswith(begin)), begin
    assert {'scr_ade20k_pairs', 'osediff_sd21_pairs', 'pairs_as_they_are'} <= stems


@pytest.mark.parametrize('kind', [RASS, CURVE])
def test_another_test_set_is_another_table(kind, tmp_path):
    """Two test sets may have the same name and number of images. Records without a hash are a set of their own."""
    files = []
    for number, value in enumerate(['a', 'a', 'b', None]):
        content = copy.deepcopy(kind)
        content |= {'seed': number} if kind is RASS else {'name': str(number)}
        (content['data'] if kind is CURVE else content).update(
            {} if value is None else {'sha256' if kind is CURVE else 'test_set': value}
        )
        files.append(tmp_path / f'{number}.json')
        files[-1].write_text(json.dumps(content))
    assert main(['report', *map(str, files), '--out', str(tmp_path / 'report.md')]) == 0
    tables = (tmp_path / 'report.md').read_text().split('| system')[1:]
    rows = [[line for line in table.splitlines()[2:] if line.startswith('|')] for table in tables]
    assert [len(lines) for lines in rows] == [2, 1, 1]
