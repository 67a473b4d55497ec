"""`rass-mm robustness` from the command line: points, resuming, errors, and comparison of models."""

import json
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from commands import ROOT, warm

from rass_mm.diffusion.base import read_base
from rass_mm.diffusion.one_step_restorer import OneStepRestorer
from rass_mm_cli.main import main, run_command

RESNET = 'baselines/resnet_scenes_tiny.py'
R2S = 'baselines/resnet_scenes_tiny_r2s.py'
RASS = 'rass/rass_scenes_tiny.py'
KEYS = [('clean', None), ('jpeg', 0.0), ('jpeg', 1.0)]
FEW = ['--severities', '0', '1']


def data(scenes, **others):
    """--cfg-options that point a tiny config to the fixtures."""
    given = {f'{loader}_dataloader.dataset.data_root': scenes for loader in ('train', 'val', 'test')}
    return ['--cfg-options', *(f'{key}={value}' for key, value in {**given, **others}.items())]


def rass_mm(*arguments):
    """Runs the command in this process; returns its exit status."""
    return main([str(argument) for argument in arguments])


def points(path):
    record = json.loads(path.read_text())
    return {(point['kind'], point['severity']): point for point in record['points']}


def metrics(folder):
    return json.loads((folder / 'metrics.json').read_text())['metrics']


@pytest.fixture(scope='module')
def trained(tmp_path_factory, scenes):
    """Checkpoint of the tiny ResNet after a few iterations."""
    work = tmp_path_factory.mktemp('resnet')
    short = {'train_cfg.max_iters': 12, 'train_cfg.val_interval': 100, 'train_dataloader.batch_size': 2}
    assert rass_mm('train', RESNET, '--work-dir', work, *data(scenes, **short)) == 0
    return work / 'iter_12.pth'


@pytest.fixture(scope='module')
def killed(trained, scenes, tmp_path_factory):
    """Sweep that was killed after its fourth point and resumed: folder, points at the kill, end of the log."""
    out = tmp_path_factory.mktemp('curve')
    arguments = ['-m', 'rass_mm', 'robustness', RESNET, str(trained), '--out', str(out), '--name', 'ResNet', *FEW]
    arguments += data(scenes)
    command = [sys.executable, *map(str, arguments)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith('4/13'):
            process.send_signal(signal.SIGKILL)
            break
    process.stderr.close()
    assert process.wait(60) == -signal.SIGKILL, ''.join(lines)
    kept = points(out / 'ResNet.json')
    assert not (out / 'ResNet.png').exists()
    resumed = warm(*arguments)
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    return SimpleNamespace(folder=out, kept=kept, log=resumed.stderr)


@pytest.fixture(scope='module')
def curve(killed):
    """Folder of a complete sweep."""
    return killed.folder


def test_a_killed_sweep_resumes(killed):
    kept, after = killed.kept, points(killed.folder / 'ResNet.json')
    assert 4 <= len(kept) < 13 == len(after)
    assert all(after[key] == kept[key] for key in kept)
    assert f'{13 - len(kept)} of 13 points to test' in killed.log and 'clean:' not in killed.log
    assert re.search(r'jpeg 1 \(30\): mIoU \d+\.\d\d', killed.log)


def test_the_record_says_what_was_measured_and_how(curve, trained):
    record = json.loads((curve / 'ResNet.json').read_text())
    assert (record['name'], record['config'], record['seed']) == ('ResNet', RESNET, 0)
    assert record['recipe_version'] == 2
    assert record['checkpoint']['name'] == trained.name and len(record['checkpoint']['sha256']) == 64
    assert record['data']['images'] == 4 and record['data']['img_path'] == 'img_dir/val'
    assert record['runs'][0]['command'].startswith('python -m rass_mm robustness baselines/')
    assert record['runs'][0]['versions']['mmsegmentation'] and record['runs'][0]['device']
    for (kind, severity), point in points(curve / 'ResNet.json').items():
        assert (severity is None) == (kind == 'clean') and point['images'] == 4 and point['seconds'] > 0
        present = [value for value in point['IoU'].values() if value is not None]
        assert list(point['IoU']) == record['data']['classes'] and present
        assert np.mean(present) == pytest.approx(point['mIoU'], abs=0.006)  # mmseg rounds to two digits
    assert points(curve / 'ResNet.json')[('blur', 1.0)]['parameter'] == 3.0


@pytest.mark.parametrize(
    ('folder', 'key'), [('img_dir/val', ('clean', None)), ('img_lq/val', ('mixed', 1.0))], ids=['clean', 'lq copy']
)
def test_a_point_equals_an_ordinary_test_of_the_same_images(curve, trained, scenes, tmp_path, folder, key):
    """Clean means the clean images; mixed at severity 1 equals the copy written by make-lq with the same seed."""
    images = {'test_dataloader.dataset.data_prefix.img_path': folder}
    arguments = [RESNET, trained, '--work-dir', tmp_path, *data(scenes, **images)]
    assert run_command('test', [str(argument) for argument in arguments]) == 0
    found, expected = points(curve / 'ResNet.json'), metrics(tmp_path)
    assert {name: found[key][name] for name in ('mIoU', 'aAcc', 'mAcc')} == pytest.approx(expected, abs=1e-4)
    assert all(point['IoU'] != found[key]['IoU'] for other, point in found.items() if other[1] == 1 and other != key)


def test_a_mean_over_labelled_classes_has_these_classes(trained, scenes, tmp_path):
    few = ['--kinds', 'jpeg', '--severities', '1', '--limit', '1']
    rule = {'test_evaluator.type': 'MeanIoUMetric', 'test_evaluator.mean_over': 'present'}
    arguments = ['robustness', RESNET, trained, '--out', tmp_path, '--name', 'present', *few, *data(scenes, **rule)]
    assert rass_mm(*arguments) == 0
    label = cv2.imread(str(sorted((scenes / 'ann_dir' / 'val').iterdir())[0]), cv2.IMREAD_UNCHANGED)
    names = json.loads((tmp_path / 'present.json').read_text())['data']['classes']
    labelled = {names[k] for k in np.unique(label) if k != 255}
    for point in points(tmp_path / 'present.json').values():
        values = [value for value in point['IoU'].values() if value is not None]
        assert {name for name, value in point['IoU'].items() if value is not None} == labelled
        assert point['classes'] == len(labelled) and point['mIoU'] == pytest.approx(np.mean(values), abs=1e-4)
    assert 'mean over classes with labelled pixels' in (tmp_path / 'present.md').read_text()


def test_table_and_plot_show_every_point(curve):
    table = (curve / 'ResNet.md').read_text()
    assert 'over all pixels of 4 images (ScenesDataset, img_dir/val), 12 classes, draws of seed 0' in table
    assert 'rass_mm robustness baselines/resnet_scenes_tiny.py' in table and '1 (30/255)' in table
    found = points(curve / 'ResNet.json')
    for title, kind in (('Gaussian blur', 'blur'), ('JPEG', 'jpeg'), ('Two-stage', 'mixed')):
        row = table[table.index(title) :].partition('| ResNet')[2].splitlines()[0]
        expected = [found[('clean', None)], found[(kind, 0.0)], found[(kind, 1.0)]]
        assert [cell.strip() for cell in row.split('|')[1:4]] == [f'{point["mIoU"]:.2f}' for point in expected]
    picture = cv2.imread(str(curve / 'ResNet.png'))
    assert picture.shape[1] > 1000 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 50


def test_a_whole_curve_runs_nothing_again_wherever_its_files_lie(curve, trained, scenes, tmp_path, capsys):
    before = (curve / 'ResNet.json').read_bytes()
    moved, link = tmp_path / 'renamed.pth', tmp_path / 'scenes'
    moved.write_bytes(trained.read_bytes())
    link.symlink_to(scenes)
    assert rass_mm('robustness', RESNET, moved, '--out', curve, '--name', 'ResNet', *FEW, *data(link)) == 0
    assert (curve / 'ResNet.json').read_bytes() == before
    assert 'ResNet.png' in capsys.readouterr().out


@pytest.mark.parametrize('changed', ['checkpoint', 'config', 'seed', 'data', 'limit', 'recipe-version'])
def test_points_of_another_test_are_not_mixed(curve, trained, scenes, tmp_path, capsys, changed):
    before, root, checkpoint, more, options = (curve / 'ResNet.json').read_bytes(), scenes, trained, [], {}
    if changed == 'checkpoint':
        checkpoint = tmp_path / trained.name  # same name, other weights
        state = torch.load(trained, weights_only=True)
        state['state_dict']['decode_head.conv_seg.bias'] += 1
        torch.save({'state_dict': state['state_dict']}, checkpoint)
    elif changed == 'config':
        options['model.decode_head.align_corners'] = True
    elif changed == 'data':
        root = tmp_path / 'scenes'
        for part in ('img_dir', 'ann_dir'):
            (root / part / 'val').mkdir(parents=True)
            for file in (scenes / part / 'val').glob('*.png'):
                (root / part / 'val' / file.name).write_bytes(file.read_bytes())
        first = next((root / 'img_dir' / 'val').glob('*.png'))
        cv2.imwrite(str(first), cv2.imread(str(first))[::-1])
    else:
        more = [f'--{changed}', '1' if changed == 'recipe-version' else '2']
    arguments = [RESNET, checkpoint, '--out', curve, '--name', 'ResNet', *FEW, *more, *data(root, **options)]
    assert rass_mm('robustness', *arguments) == 1
    error = capsys.readouterr().err
    named = {'config': 'settings.model.decode_head.align_corners: False, now True', 'seed': 'seed: 0, now 2'}
    named |= {
        'recipe-version': 'recipe_version: 2, now 1',
        'limit': 'data.images: 4, now 2',
        'data': 'data.sha256',
        'checkpoint': 'checkpoint: ',
    }
    assert named[changed] in error and 'Choose another --name' in error and 'Traceback' not in error
    assert len(re.findall('now', error)) == (2 if changed == 'limit' else 1)
    assert (curve / 'ResNet.json').read_bytes() == before


def write_adapter(path, base_folder, seed=1):
    torch.manual_seed(seed)
    base = read_base(base_folder)
    model = OneStepRestorer(base)
    for name, parameter in model.unet.named_parameters():
        if 'lora_B' in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save(path, base.identity, 'ClassTokens', ['sky', 'car', 'road'])


@pytest.fixture(scope='module')
def adapter(tiny_base, tmp_path_factory):
    """Adapter file of a restorer with random values."""
    path = tmp_path_factory.mktemp('adapter') / 'scr.safetensors'
    write_adapter(path, tiny_base)
    return path


@pytest.fixture(scope='module')
def r2s(curve, trained, scenes, tiny_base, adapter, tmp_path_factory):
    """Arguments and folder of a finished short sweep of R2S that is compared with the ResNet."""
    out = tmp_path_factory.mktemp('r2s')
    restorer = {'model.restorer.adapter': adapter, 'model.restorer.base': tiny_base}
    arguments = [R2S, trained, '--out', out, '--name', 'R2S', '--kinds', 'jpeg', '--severities', '1']
    arguments += ['--compare', curve / 'ResNet.json', *data(scenes, **restorer)]
    assert rass_mm('robustness', *arguments) == 0
    return SimpleNamespace(folder=out, arguments=arguments)


def test_models_are_shown_together(r2s, curve):
    lines = (r2s.folder / 'R2S.md').read_text().partition('JPEG compression')[2].splitlines()[4:6]
    cells = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines]
    values = [f'{points(curve / "ResNet.json")[key]["mIoU"]:.2f}' for key in KEYS]
    assert cells[1] == ['ResNet', *values]
    r2s_values = points(r2s.folder / 'R2S.json')
    assert cells[0] == ['R2S', f'{r2s_values[KEYS[0]]["mIoU"]:.2f}', '-', f'{r2s_values[KEYS[2]]["mIoU"]:.2f}']


def test_a_changed_restorer_file_is_another_config(r2s, tiny_base, adapter, capsys):
    content = adapter.read_bytes()
    try:
        write_adapter(adapter, tiny_base, seed=2)
        assert rass_mm('robustness', *r2s.arguments) == 1
    finally:
        adapter.write_bytes(content)
    assert 'settings.model.restorer.adapter: ' in capsys.readouterr().err


def test_rass_joins_a_picture_drawn_from_files(r2s, curve, scenes, tiny_base, tmp_path, capsys):
    work, out, base = tmp_path / 'rass', tmp_path / 'out', {'model.backbone.base': tiny_base}
    short = {'train_cfg.max_iters': 1, 'train_cfg.val_interval': 100, 'train_dataloader.batch_size': 2}
    assert rass_mm('train', RASS, '--work-dir', work, *data(scenes, **short, **base)) == 0
    kinds = ['--kinds', 'jpeg', '--severities', '1']
    assert rass_mm('robustness', RASS, work / 'iter_1.pth', '--out', out, *kinds, *data(scenes, **base)) == 0
    capsys.readouterr()
    drawn, files = tmp_path / 'drawn', [out / 'rass_scenes_tiny.json', curve / 'ResNet.json', r2s.folder / 'R2S.json']
    assert rass_mm('robustness', '--plot', *files, '--out', drawn) == 0
    assert sorted(file.name for file in drawn.iterdir()) == ['robustness.md', 'robustness.png']
    assert 'rass_scenes_tiny, ResNet, R2S' in capsys.readouterr().out


def test_the_calibration_is_measured_when_asked_for_and_never_mixed(curve, trained, scenes, tmp_path, capsys):
    few = ['--kinds', 'jpeg', '--severities', '0', '1', '--name', 'ResNet', *data(scenes)]
    assert rass_mm('robustness', RESNET, trained, '--out', tmp_path / 'out', '--calibration', *few) == 0
    found = points(tmp_path / 'out' / 'ResNet.json')
    without = points(curve / 'ResNet.json')
    for key in KEYS:
        assert found[key]['mIoU'] == without[key]['mIoU'] and 'ECE' not in without[key]
        # Jensen: the mean of the differences of the bins is at least the difference of the means.
        assert abs(found[key]['confidence'] - found[key]['aAcc']) <= found[key]['ECE'] + 0.01 < 100
    table = (tmp_path / 'out' / 'ResNet.md').read_text().split('Expected calibration error')[1]
    row = next(line for line in table.splitlines() if line.startswith('| ResNet'))
    assert row.split()[3::2] == [f'{found[key]["ECE"]:.2f}' for key in KEYS]
    capsys.readouterr()
    assert rass_mm('robustness', RESNET, trained, '--out', tmp_path / 'out', *few) == 1
    assert 'settings.calibration: True, now None' in capsys.readouterr().err


def test_files_that_cannot_be_drawn_are_named(curve, tmp_path, capsys):
    file = curve / 'ResNet.json'
    for wrong, message in (([file, file], "Two curves are named 'ResNet'"), ([tmp_path / 'no.json'], 'does not exist')):
        assert rass_mm('robustness', '--plot', *wrong, '--out', tmp_path / 'drawn') == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / 'drawn').exists()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['{checkpoint}'], 'Pass CONFIG and CHECKPOINT to test, or --plot'),
        ([RESNET, 'no.pth', '{data}'], 'Checkpoint no.pth does not exist'),
        ([RESNET, '{checkpoint}', '--severities', '2', '{data}'], '--severities: 2.0 is not in the range 0 to 1'),
        ([RESNET, '{checkpoint}', '--limit', '0', '{data}'], '--limit is 0'),
        ([RESNET, '{checkpoint}', '--name', 'a/b', '{data}'], 'Remove the slashes'),
        ([RESNET, '{checkpoint}', '{data}', 'clean_val=None'], 'clean_val.img_path=FOLDER_BELOW_DATA_ROOT'),
        ([RESNET, '{checkpoint}', '{data}', 'clean_val.img_path=nowhere'], 'nowhere does not exist'),
        ([RESNET, '{checkpoint}', '{data}', 'test_evaluator.iou_metrics=[mFscore]'], 'test_evaluator is'),
        (['scr/scr_scenes_tiny.py', '{checkpoint}', '{data}'], "test_evaluator is {'type': 'mmagic.Restoration"),
        (['--plot', '{checkpoint}'], 'cannot be read'),
        ([RESNET, '--plot', '{checkpoint}'], '--plot runs no test'),
    ],
)
def test_mistakes_are_named(trained, scenes, tmp_path, capsys, arguments, message):
    filled = []
    for argument in arguments:
        filled += data(scenes) if argument == '{data}' else [argument.format(checkpoint=trained)]
    assert rass_mm('robustness', '--out', tmp_path / 'out', *filled) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob('out/*.*'))
