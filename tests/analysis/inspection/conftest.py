"""One file of each format."""

import json
from types import SimpleNamespace

import pytest
from pictures import pictures
from tiny_segmentors import SCENES, shipped, write_checkpoint

from rass_mm_cli.main import main


@pytest.fixture(scope='session')
def files(tiny_base, adapter, tmp_path_factory):
    """Files and folders that the commands write."""
    folder = tmp_path_factory.mktemp('inspected')
    config = shipped('rass/rass_scenes_tiny.py', **{'model.backbone.base': str(tiny_base)})
    made = SimpleNamespace(
        rass=write_checkpoint(folder / 'rass.pth', config),
        camvid=write_checkpoint(folder / 'camvid.pth', shipped('baselines/resnet_camvid_tiny.py'), meta={}),
        plain=write_checkpoint(folder / 'plain.pth', shipped('baselines/resnet_scenes_tiny.py')),
        adapter=adapter,
        base=tiny_base,
        folder=folder,
        classes=list(SCENES['classes']),
    )
    for scene in range(2):
        (folder / 'photos').mkdir(exist_ok=True)
        pictures(tmp_path_factory)[scene].crop((0, 0, 64, 64)).save(folder / 'photos' / f'{scene}.png')
    photos = str(folder / 'photos')
    commands = (
        ('pack', made.rass, folder / 'pack', '--licence', 'MIT'),
        ('pack', adapter, folder / 'restorer', '--base', tiny_base),
        ('segment', photos, folder / 'segmented', '--checkpoint', made.plain),
        ('make-lq', photos, folder / 'lq', '--workers', '1'),
    )
    for command in commands:
        assert main([*map(str, command)]) == 0
    return made


@pytest.fixture
def inspected(capsys):
    """Function that runs `rass-mm inspect --json` and returns the facts."""

    def run(path):
        capsys.readouterr()
        assert main(['inspect', str(path), '--json']) == 0
        return json.loads(capsys.readouterr().out)

    return run
