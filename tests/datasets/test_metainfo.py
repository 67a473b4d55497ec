"""Class names and palettes of data sets: what is refused in every command, and what is read."""

import pytest
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from rass_mm.config import load_config
from rass_mm.datasets.metainfo import check_metainfo
from rass_mm.datasets.names import class_names
from rass_mm.errors import ConfigError
from rass_mm_cli.main import main

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
KEY = r'train_dataloader\.dataset\.metainfo'
WRONG = {
    'a string': (dict(classes='asphalt'), rf"{KEY}\.classes is 'asphalt', .* needs a comma: \('asphalt',\)"),
    'a number': (dict(classes=3), rf'{KEY}\.classes is 3, .* tuple or list of names'),
    'numbers': (dict(classes=(1, 2)), rf'{KEY}\.classes is \(1, 2\), .* tuple or list of names'),
    'twice': (dict(classes=('asphalt', 'car', 'car')), rf"{KEY}\.classes contains 'car' more than once"),
    'few colours': (
        dict(classes=('asphalt', 'car', 'person'), palette=[[0, 0, 0], [1, 1, 1]]),
        rf'{KEY}\.palette has 2 colours, but there are 3 classes',
    ),
    'a colour name': (dict(classes=('asphalt', 'car'), palette='red'), rf"{KEY}\.palette is 'red'"),
    'no dict': (('asphalt', 'car'), rf'{KEY} is .*, but it should be a dict'),
    'a folder': (dict(classes='.'), rf'{KEY} names a file that cannot be read'),
}


def config_of(metainfo, kind='BaseSegDataset', **more):
    return {'train_dataloader': {'dataset': {'type': kind, 'metainfo': metainfo, **more}}}


@pytest.mark.parametrize('case', WRONG)
def test_wrong_names_and_palettes_are_errors_with_the_key(case):
    metainfo, said = WRONG[case]
    with pytest.raises(ConfigError, match=f'(?s)^{said}'):
        check_metainfo(config_of(metainfo), LOADERS)


def test_a_string_in_a_class_of_the_user_is_an_error(monkeypatch):
    class Mine(BaseSegDataset):
        METAINFO = dict(classes=('asphalt'))

    monkeypatch.setitem(DATASETS.module_dict, 'Mine', Mine)
    with pytest.raises(ConfigError, match=r"Mine\.METAINFO\['classes'\] .train_dataloader\.dataset. is 'asphalt'"):
        check_metainfo(config_of(None, 'Mine'), LOADERS)
    with pytest.raises(ConfigError, match=r"Mine\.METAINFO\['classes'\] is 'asphalt'"):
        class_names('Mine')


def test_a_part_of_a_wrapper_is_named():
    parts = [config_of(dict(classes=names))['train_dataloader']['dataset'] for names in (('a', 'b'), 'ab')]
    wrapped = {'val_dataloader': {'dataset': {'type': 'ConcatDataset', 'datasets': parts}}}
    with pytest.raises(ConfigError, match=r"val_dataloader\.dataset\.datasets\.1\.metainfo\.classes is 'ab'"):
        check_metainfo(wrapped, LOADERS)


@pytest.mark.parametrize(
    ('metainfo', 'kind'),
    [
        (dict(classes=('a', 'b'), palette=[[0, 0, 0], [1, 1, 1]]), 'BaseSegDataset'),
        (dict(classes=['a'], palette=[]), 'BaseSegDataset'),
        (dict(classes=('sky', 'road')), 'CamVidDataset'),
        (dict(classes=('sky', 'road'), palette=[[0, 0, 0], [1, 1, 1]]), 'CamVidDataset'),
        (None, 'ADE20KDataset'),
        (None, 'NoSuchDataset'),
    ],
)
def test_valid_names_and_palettes_are_accepted(metainfo, kind):
    check_metainfo(config_of(metainfo, kind), LOADERS)


@pytest.mark.parametrize('command', ['train', 'check-data', 'test'])
@pytest.mark.parametrize('case', ['a string', 'twice', 'few colours'])
def test_every_command_refuses_them_at_the_start(tmp_path, capsys, command, case):
    metainfo, _ = WRONG[case]
    config = load_config('baselines/resnet_scenes_tiny.py')
    config.train_dataloader.dataset.update(type='BaseSegDataset', metainfo=metainfo)
    config.dump(tmp_path / 'own.py')
    given = [tmp_path / 'absent.pth'] if command == 'test' else []
    more = [] if command == 'check-data' else ['--work-dir', tmp_path / 'work']
    assert main([command, *map(str, [tmp_path / 'own.py', *given, *more])]) == 1
    assert 'train_dataloader.dataset.metainfo.' in capsys.readouterr().err and not (tmp_path / 'work').exists()
