"""`rass-mm check-data` on data sets with deliberate faults, and its counts compared with mmseg's loading."""

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import DATASETS
from PIL import Image

from rass_mm import parallel
from rass_mm.cli import check_data
from rass_mm.datasets.check import reading as checking
from rass_mm.datasets.check.listing import LabelRules
from rass_mm.datasets.check.run import check_config
from rass_mm.errors import ConfigError
from rass_mm_cli.main import main

POOL = parallel.ProcessPoolExecutor
CLASSES = ['road', 'car', 'tree', 'sky']


@pytest.fixture
def root(tmp_path):
    """Data set of six 64x48 photos `images/{a,b,c,d,e,f}.jpg` with labels `labels/*.png` of ids 0 to 3 and 255."""
    rng = np.random.default_rng(0)
    for name in ('images', 'labels'):
        (tmp_path / name).mkdir()
    for name in 'abcdef':
        picture = cv2.GaussianBlur(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8), (0, 0), 2)
        cv2.imwrite(str(tmp_path / 'images' / f'{name}.jpg'), picture)
        label = rng.integers(0, 4, (48, 64)).astype(np.uint8)
        label[:4] = 255
        save(tmp_path, name, label)
    return tmp_path


def save(root, name, label):
    Image.fromarray(label).save(root / 'labels' / f'{name}.png')


def load(root, name):
    return np.asarray(Image.open(root / 'labels' / f'{name}.png'))


def cut(file, kept):
    data = file.read_bytes()
    file.write_bytes(data[: int(kept * len(data))])


def config(root, classes=CLASSES, **options):
    """Writes a config with the training data in `root`."""
    dataset = dict(
        type='BaseSegDataset',
        data_root=str(root),
        metainfo=dict(classes=classes),
        data_prefix=dict(img_path='images', seg_map_path='labels'),
        pipeline=[dict(type='LoadImageStrict'), dict(type='LoadLabelStrict', num_classes=len(classes))],
    )
    return Config(dict(train_dataloader=dict(dataset={**dataset, **options})))


def check(root, limit=None, **options):
    (report,) = check_config(config(root, **options), limit=limit)
    return report


def test_a_clean_data_set_has_no_problems_and_exact_counts(root):
    report = check(root)
    assert (report.problems, report.error, report.hints, report.never) == (0, None, [], [])
    assert (report.images, report.pairs, report.checked, report.width, report.height) == (6, 6, 6, (64, 64), (48, 48))
    labels = np.stack([load(root, name) for name in 'abcdef'])
    for row in report.classes:
        assert row['name'] == CLASSES[row['id']] and row['images'] == 6
        assert row['pixels'] == np.sum(labels == row['id'])
        assert row['share'] == pytest.approx(np.mean(labels == row['id']))
    assert report.ignored == {'pixels': 6 * 4 * 64, 'share': pytest.approx(4 / 48)}
    assert sum(row['share'] for row in report.classes) + report.ignored['share'] == pytest.approx(1)


@pytest.mark.parametrize('reduce', [False, True])
@pytest.mark.parametrize('chosen', [None, ['car', 'sky']])
def test_ids_have_the_same_meaning_as_in_mmseg(tmp_path, reduce, chosen):
    ids = np.arange(256, dtype=np.uint8)[None]
    Image.fromarray(ids).save(tmp_path / 'label.png')
    label_map = chosen and {old: chosen.index(name) if name in chosen else 255 for old, name in enumerate(CLASSES)}
    results = {'seg_map_path': str(tmp_path / 'label.png'), 'seg_fields': [], 'reduce_zero_label': reduce}
    expected = LoadAnnotations()({**results, 'label_map': label_map})['gt_seg_map']
    rules = LabelRules(tuple(chosen or CLASSES), len(chosen or CLASSES), reduce, 255, label_map)
    found = [rules.class_of(raw) for raw in range(256)]
    assert [255 if value is None else value for value in found] == expected.tolist()
    assert [rules.valid(raw) for raw in range(256)] == [v < rules.num_classes or v == 255 for v in expected.tolist()]


def test_counts_of_the_scenes_are_those_of_their_loaded_labels(scenes):
    (report,) = check_config(scenes_config(scenes), ['train'])
    dataset = DATASETS.build(
        scenes_config(scenes).train_dataloader.dataset | {'pipeline': [dict(type=LoadAnnotations)]}
    )
    labels = [dataset[number]['gt_seg_map'] for number in range(len(dataset))]
    assert [row['pixels'] for row in report.classes] == np.bincount(
        np.concatenate(labels).ravel(), minlength=12
    ).tolist()
    assert [row['images'] for row in report.classes] == [sum(k in label for label in labels) for k in range(12)]
    assert [row['name'] for row in report.classes] == list(dataset.metainfo['classes'])
    assert report.problems == 0


def scenes_config(scenes):
    from rass_mm.config import load_config

    roots = {f'{split}_dataloader.dataset.data_root': str(scenes) for split in ('train', 'val', 'test')}
    return load_config('rass/rass_scenes_tiny.py', roots)


@pytest.mark.parametrize('kept', [0, 0.5, 0.97])
def test_truncated_images_and_labels_are_named_with_their_reasons(root, kept):
    cut(root / 'images' / 'b.jpg', kept)
    cut(root / 'labels' / 'd.png', kept)
    report = check(root)
    assert [entry['file'] for entry in report.unreadable] == [f'{root}/images/b.jpg', f'{root}/labels/d.png']
    assert all('cannot be read' in entry['reason'] and '0x' not in entry['reason'] for entry in report.unreadable)
    assert report.problems == 2 and report.checked == 6 and report.mismatches == []


def test_damage_in_the_middle_of_a_label_is_found(root):
    file = root / 'labels' / 'c.png'
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)
    assert [entry['file'] for entry in check(root).unreadable] == [str(file)]


def test_a_web_page_named_as_an_image_and_a_colour_label_are_unreadable(root):
    (root / 'images' / 'a.jpg').write_text('<html>404</html>')
    Image.new('RGB', (64, 48)).save(root / 'labels' / 'b.png')
    first, second = check(root).unreadable
    assert 'not an image of a known type' in first['reason']
    assert 'RGB' in second['reason'] and 'one channel of class ids' in second['reason']


def test_images_without_label_and_labels_without_image_are_distinguished(root):
    (root / 'labels' / 'a.png').unlink()
    (root / 'images' / 'f.jpg').unlink()
    report = check(root)
    assert report.without_partner == [f'{root}/images/a.jpg'] and report.without_image == [f'{root}/labels/f.png']
    assert (report.images, report.pairs, report.checked, report.problems) == (5, 4, 5, 2)


def test_labels_of_images_outside_a_list_of_files_are_not_a_problem(root):
    (root / 'list.txt').write_text('a\nb\nghost\n')
    report = check(root, ann_file='list.txt')
    assert (report.images, report.without_image) == (3, [])
    assert [entry['file'] for entry in report.unreadable] == [f'{root}/images/ghost.jpg']
    assert report.without_partner == [f'{root}/images/ghost.jpg']


def test_a_label_of_another_size_is_named_with_both_sizes(root):
    save(root, 'c', load(root, 'c')[:40, :60])
    (entry,) = check(root).mismatches
    assert (entry['image'], entry['partner']) == (f'{root}/images/c.jpg', f'{root}/labels/c.png')
    assert (entry['image_size'], entry['partner_size']) == ((64, 48), (60, 40))


@pytest.mark.parametrize('wrong', [4, 77, 300])
def test_ids_out_of_range_name_their_files(root, wrong):
    for name in 'be':
        label = load(root, name).astype(np.uint16)
        save(root, name, np.where(label == 2, wrong, label).astype(np.uint16))
    report = check(root)
    pixels = sum(int(np.sum(load(root, name) == wrong)) for name in 'be')
    files = [f'{root}/labels/b.png', f'{root}/labels/e.png']
    assert report.out_of_range == [{'id': wrong, 'pixels': pixels, 'files': files}] and report.problems == 1
    assert bool(report.hints) == (wrong == 4)


def test_background_zero_hints_at_reduce_zero_label(root):
    for name in 'abcdef':
        label = load(root, name)
        save(root, name, np.where(label == 255, 0, label + 1).astype(np.uint8))
    report = check(root)
    assert [entry['id'] for entry in report.out_of_range] == [4]
    assert len(report.hints) == 1 and 'reduce_zero_label=True' in report.hints[0]
    report = check(root, reduce_zero_label=True)
    assert (report.problems, report.hints) == (0, []) and report.ignored['share'] == pytest.approx(4 / 48)


def test_wrong_reduce_zero_label_is_hinted_at(root):
    report = check(root, reduce_zero_label=True)
    assert len(report.hints) == 1 and 'set reduce_zero_label=False' in report.hints[0]
    assert report.never == ['sky'] and report.problems == 0


def test_classes_that_never_occur_are_named_but_are_not_a_problem(root):
    report = check(root, classes=[*CLASSES, 'boat'])
    assert report.never == ['boat'] and report.classes[4]['images'] == 0 and report.problems == 0


def test_a_pipeline_for_other_classes_is_hinted_at(root):
    pipeline = [dict(type='LoadLabelStrict', num_classes=3, ignore_index=255)]
    report = check(root, pipeline=pipeline)
    assert 'num_classes=3' in report.hints[0] and [entry['id'] for entry in report.out_of_range] == [3]


def test_images_with_another_suffix_are_hinted_at(root):
    (root / 'images' / 'a.jpg').rename(root / 'images' / 'a.jpeg')
    report = check(root)
    assert report.images == 5 and '1 file(s)' in report.hints[0] and '.jpg' in report.hints[0]
    assert report.without_image == [f'{root}/labels/a.png']


@pytest.mark.parametrize('folder', ['images', 'labels'])
def test_missing_folders_are_one_problem(root, folder):
    shutil.rmtree(root / folder)
    report = check(root)
    assert report.problems == 1 and f'{root}/{folder}' in report.error and 'train_dataloader' in report.error


def test_an_empty_folder_is_a_problem(root):
    for file in (root / 'images').iterdir():
        file.unlink()
    report = check(root)
    assert report.problems == 1 and 'contains no images that end in' in report.error


def test_a_limit_reads_the_first_images_and_still_finds_missing_files(root):
    (root / 'labels' / 'f.png').unlink()
    cut(root / 'images' / 'e.jpg', 0.5)
    report = check(root, limit=2)
    assert (report.checked, report.images, report.unreadable) == (2, 6, [])
    assert report.without_partner == [f'{root}/images/f.jpg']


def test_images_without_labels_are_checked_alone(root):
    cut(root / 'images' / 'a.jpg', 0.5)
    report = check(root, data_prefix=dict(img_path='images'))
    assert len(report.unreadable) == 1 and report.classes == [] and report.without_image == []


def test_parts_of_wrapped_data_sets_are_reported_one_by_one(root):
    plain = config(root).train_dataloader.dataset
    wrapped = dict(type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=[plain, plain]))
    first, second = check_config(Config(dict(train_dataloader=dict(dataset=wrapped))))
    assert (first.name, second.name, second.same_as) == ('train[0]', 'train[1]', 'train[0]')


@pytest.mark.parametrize('upscale', [False, True])
def test_clean_partners_are_found_by_the_pipeline_and_compared(root, upscale):
    shutil.copytree(root / 'images', root / 'lq')
    (root / 'images' / 'a.jpg').unlink()
    cut(root / 'images' / 'b.jpg', 0.5)
    small = cv2.resize(cv2.imread(str(root / 'lq' / 'c.jpg')), (32, 24))
    cv2.imwrite(str(root / 'lq' / 'c.jpg'), small)
    step = dict(type='LoadCleanImage', lq='lq', clean='images', suffix='.jpg', upscale=upscale)
    report = check(root, data_prefix=dict(img_path='lq'), pipeline=[step])
    assert report.without_partner == [f'{root}/lq/a.jpg']
    assert [entry['file'] for entry in report.unreadable] == [f'{root}/images/b.jpg']
    assert [entry['partner'] for entry in report.mismatches] == [f'{root}/images/c.jpg'] * (not upscale)


def test_pairs_of_mmagic_are_matched_by_name(root):
    pytest.importorskip('mmagic', reason='mmagic (rass_mm[restoration]) is not installed')
    shutil.copytree(root / 'images', root / 'gt')
    (root / 'gt' / 'a.jpg').unlink()
    (root / 'images' / 'f.jpg').unlink()
    cut(root / 'gt' / 'b.jpg', 0.5)
    cv2.imwrite(str(root / 'gt' / 'c.jpg'), np.zeros((24, 32, 3), np.uint8))
    from rass_mm.config import load_config

    options = {'data_root': str(root), 'data_prefix.img': 'images', 'data_prefix.gt': 'gt'}
    options = {f'test_dataloader.dataset.{key}': value for key, value in options.items()}
    (report,) = check_config(load_config('scr/scr_camvid_tiny_pairs.py', options))
    assert report.without_partner == [f'{root}/images/a.jpg'] and report.without_image == [f'{root}/gt/f.jpg']
    assert [entry['file'] for entry in report.unreadable] == [f'{root}/gt/b.jpg']
    assert [entry['partner_size'] for entry in report.mismatches] == [(32, 24)]  # a clean image may only be larger
    assert report.problems == 4 and report.classes == []


def dumped(root, **options):
    path = root / 'config.py'
    config(root, **options).dump(path)
    return path


def test_the_command_is_silent_about_clean_data_and_returns_0(root, capsys):
    assert main(['check-data', str(dumped(root)), '--workers', '1']) == 0
    shown = capsys.readouterr().out
    assert 'train: BaseSegDataset' in shown and 'No problems in 1 data set.' in shown and 'out of range' not in shown
    assert all(name in shown for name in CLASSES)


def test_other_classes_of_a_split_are_a_problem_and_the_check_goes_on(root, capsys, tmp_path):
    found = config(root)
    other = Config(found.to_dict()).train_dataloader
    other.dataset.metainfo.classes = ['road', 'car', 'sky', 'tree']
    found.merge_from_dict({'val_dataloader': {'dataset': {'type': 'RepeatDataset', 'times': 1, **other}}})
    found.model = {'type': 'EncoderDecoder', 'decode_head': {'type': 'FCNHead', 'num_classes': 4}}
    found.dump(root / 'config.py')
    out = tmp_path / 'found.json'
    assert main(['check-data', str(root / 'config.py'), '--workers', '1', '--json', str(out)]) == 1
    shown = ' '.join(capsys.readouterr().out.split())
    assert 'Conflicts with the model (1):' in shown and '1 problem in 2 data sets.' in shown
    assert 'val_dataloader.dataset.dataset (BaseSegDataset) has 4 classes (road, car, sky, tree), but the' in shown
    train, val = json.loads(out.read_text())['data']
    assert train['conflicts'] == [] and len(val['conflicts']) == 1
    assert (train['checked'], val['checked'], val['problems']) == (6, 6, 1)


def test_the_command_in_processes_lists_every_fault_and_returns_1(root, monkeypatch, capsys, caplog):
    monkeypatch.setattr(checking, 'FEW', 0)
    started = []
    monkeypatch.setattr(parallel, 'ProcessPoolExecutor', lambda *args, **kw: started.append(args) or POOL(*args, **kw))
    cut(root / 'images' / 'a.jpg', 0.5)
    save(root, 'b', load(root, 'b')[:40])
    save(root, 'c', np.full((48, 64), 9, np.uint8))
    (root / 'labels' / 'd.png').unlink()
    out = root / 'found.json'
    caplog.set_level('INFO')
    assert main(['check-data', str(dumped(root)), '--workers', '2', '--json', str(out)]) == 1
    shown = capsys.readouterr().out
    for told in ('a.jpg: the image cannot be read', 'b.png is 64x40', '9: 3072 pixels in', 'd.jpg', '4 problems'):
        assert told in shown
    assert started == [(2,)] and 'train: 6 of 6' in caplog.text
    record = json.loads(out.read_text())
    (found,) = record['data']
    assert record['problems'] == found['problems'] == 4
    assert found['out_of_range'] == [{'id': 9, 'pixels': 3072, 'files': [f'{root}/labels/c.png']}]
    assert found == json.loads(json.dumps(check(root).as_dict()))  # in one process


def test_val_and_test_on_the_same_data_are_read_once(scenes, capsys):
    options = [f'{split}_dataloader.dataset.data_root={scenes}' for split in ('val', 'test')]
    command = ['check-data', 'rass/rass_scenes_tiny.py', '--splits', 'val', 'test', '--workers', '1']
    assert main([*command, '--cfg-options', *options]) == 0
    assert 'the same data set as val' in capsys.readouterr().out


def test_long_lists_are_cut_on_the_terminal_only(root, capsys):
    for number in range(40):
        shutil.copy(root / 'labels' / 'a.png', root / 'labels' / f'spare{number:02}.png')
    names = [f'class{number}' for number in range(60)]
    path = dumped(root, classes=names)
    save(root, 'b', np.arange(48 * 64, dtype=np.int64).reshape(48, 64).astype(np.uint8) % 60)
    assert main(['check-data', str(path), '--workers', '1', '--json', str(root / 'found.json')]) == 1
    shown = capsys.readouterr().out
    assert 'and 30 more' in shown and 'spare09.png' in shown and 'spare10.png' not in shown
    assert '30 classes between' in shown
    assert len(json.loads((root / 'found.json').read_text())['data'][0]['without_image']) == 40


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (['--splits', 'val'], 'no val_dataloader'),
        (['--limit', '0'], '--limit is 0'),
        (['--workers', '0'], 'number of workers is 0'),
        (['--cfg-options', 'train_dataloader.dataset.type=NoSuchDataset'], 'NoSuchDataset is not registered'),
    ],
)
def test_invalid_options_are_refused(root, options, said, capsys):
    assert main(['check-data', str(dumped(root)), *options]) == 1
    assert said in capsys.readouterr().err


def test_remote_data_cannot_be_checked():
    with pytest.raises(ConfigError, match='no local image folder'):
        check('s3:/', data_prefix=dict(img_path='s3://bucket/images'), data_root=None)


def test_ctrl_c_ends_with_130(root, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(check_data, 'check_config', interrupted)
    assert main(['check-data', str(dumped(root))]) == 130
    assert 'Interrupted' in capsys.readouterr().err


def relabel(root, change):
    for name in 'abcdef':
        save(root, name, change(load(root, name)).astype(np.uint8))


@pytest.mark.parametrize('classes', [['thing'], ['road', 'car', 'tree']])
def test_the_fix_of_a_hint_leads_to_labels_without_that_hint(root, classes):
    """Ids 0 to K of K named classes: naming the background is one fix, and with a single class the only one."""
    number = len(classes)
    relabel(root, lambda label: np.where(label == 255, 0, label) % (number + 1))
    (hint,) = check(root, classes=classes).hints
    assert ('reduce_zero_label=True' in hint) == (number > 1) and 'name' in hint
    named = check(root, classes=['background', *classes])
    assert (named.problems, named.hints) == (0, [])
    reduced = check(root, classes=classes, reduce_zero_label=True)
    assert reduced.hints == [] and reduced.problems == (number == 1)
    assert number > 1 or "metainfo.classes=('background', 'thing')" in reduced.conflicts[0]


def test_labels_that_are_all_ignored_are_a_problem(root):
    relabel(root, lambda label: np.full_like(label, 255))
    report = check(root)
    assert report.problems == 1 and 'Every label pixel is ignored' in report.faults[0]
    assert check(root, limit=2).problems == 0 and 'ignored' in check(root, limit=2).hints[0]


def test_a_class_as_type_is_checked_like_its_name(root):
    assert check(root, type=BaseSegDataset).as_dict()['classes'] == check(root).as_dict()['classes']


def test_the_results_replace_nothing_but_results(root, capsys):
    path, label = str(dumped(root)), next(root.rglob('*.png'))
    for target in (path, label, root / 'other.json'):
        if not os.path.exists(target):
            target.write_text('{"data": 1}')
        before = Path(target).read_bytes()
        assert main(['check-data', path, '--workers', '1', '--json', str(target)]) == 1
        captured = capsys.readouterr()
        assert f'{target} exists and was not written by check-data' in captured.err and not captured.out
        assert Path(target).read_bytes() == before
    os.mkfifo(root / 'pipe')
    assert main(['check-data', path, '--workers', '1', '--json', str(root / 'pipe')]) == 1
    assert (root / 'pipe').is_fifo() and 'pipe exists and was not written by check-data' in capsys.readouterr().err
    assert main(['check-data', path, '--workers', '1', '--json', str(root / 'found.json')]) == 0
    assert main(['check-data', path, '--workers', '1', '--json', str(root / 'found.json')]) == 0


def test_the_limit_of_pixels_is_that_of_the_loader(root, capsys):
    found = config(root)
    found.train_dataloader.dataset.pipeline[0]['max_pixels'] = 50
    found.dump(root / 'config.py')
    assert main(['check-data', str(root / 'config.py'), '--workers', '1']) == 1
    assert '64x48 pixels (3,072), more than the limit of 50 pixels' in ' '.join(capsys.readouterr().out.split())


def test_what_training_does_not_ignore_is_not_reported_as_ignored(root):
    """mmseg has no use for the `ignore_index` of a data set."""
    report = check(root, ignore_index=0)
    assert report.ignored['pixels'] == 6 * 4 * 64 and report.classes[0]['pixels'] > 0
    assert report.problems == 1 and 'ignore_index=0 has no effect' in report.conflicts[0]
