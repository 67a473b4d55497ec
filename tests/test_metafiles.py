"""The index of the configs in OpenMMLab's form: complete, true to the files, with no number from nowhere."""

import re
from pathlib import Path

import pytest
import yaml
from commands import ROOT
from mmengine.config import Config

INDEX = yaml.safe_load((ROOT / 'model-index.yml').read_text(encoding='utf-8'))['Import']
FOLDERS = sorted(path.name for path in (ROOT / 'configs').iterdir() if path.is_dir() and path.name != '_base_')
CLAIM = re.compile('Claimed by .* paper, not measured here')


def content(folder):
    return yaml.safe_load((ROOT / 'configs' / folder / 'metafile.yml').read_text(encoding='utf-8'))


def test_index_lists_the_metafile_of_every_folder():
    assert [f'configs/{folder}/metafile.yml' for folder in FOLDERS] == INDEX


@pytest.mark.parametrize('folder', FOLDERS)
def test_every_config_is_listed_once_with_its_own_name(folder):
    models = content(folder)['Models']
    expected = sorted(f'configs/{folder}/{path.name}' for path in (ROOT / 'configs' / folder).glob('*.py'))
    assert sorted(model['Config'] for model in models) == expected
    assert [model['Name'] for model in models] == [Path(model['Config']).stem for model in models]


@pytest.mark.parametrize('folder', FOLDERS)
def test_collections_are_used_and_their_readmes_exist(folder):
    found = content(folder)
    names = [collection['Name'] for collection in found['Collections']]
    assert set(names) == {model['In Collection'] for model in found['Models']} and len(set(names)) == len(names)
    assert all((ROOT / collection['README']).is_file() for collection in found['Collections'])


@pytest.mark.parametrize('folder', FOLDERS)
def test_schedules_are_those_of_the_configs(folder):
    for model in content(folder)['Models']:
        config, stated = Config.fromfile(str(ROOT / model['Config']), import_custom_modules=False), model['Metadata']
        if 'Iterations' in stated:
            assert stated['Iterations'] == config.train_cfg.max_iters, model['Name']
            cards = int(re.match(r'(\d+) GPUs|', str(stated['Training Resources']))[1] or 1)
            assert stated['Batch Size'] == config.train_dataloader.batch_size * cards, model['Name']
        tested_elsewhere = any(part in model['Name'] for part in ('reallq', 'pairs'))
        assert ('Test Data' in stated) == tested_elsewhere, model['Name']


@pytest.mark.parametrize('folder', FOLDERS)
def test_results_are_measured_and_stand_in_the_document_that_is_named(folder):
    for model in content(folder)['Models']:
        results, stated = model.get('Results', []), model['Metadata']
        assert bool(results) == ('Measured in' in stated)
        for result in results:
            document = (ROOT / stated['Measured in'].split(',')[0]).read_text(encoding='utf-8')
            for name in ('mIoU', 'PSNR', 'SSIM', 'NIQE'):
                assert str(result['Metrics'].get(name, '')) in document, (model['Name'], name)
        assert all(CLAIM.fullmatch(key) for key in stated if 'laim' in key)
