"""mmseg's `EncoderDecoder` with the diffusion backbone and mmseg's own heads, by the real commands."""

import json
from pathlib import Path

import pytest
from commands import tools

from rass_mm.engine.checkpoints import load_local
from rass_mm.engine.trained_state import read_provenance

CONFIGS = {name: f'diffusion/{name}_diffusion-tiny_1xb8-170_scenes-96x96.py' for name in ('fcn', 'segformer')}


@pytest.fixture(scope='module')
def work(tmp_path_factory, scenes, tiny_base):
    """Work folders: `whole` of four iterations, `cut` of two that resumes to four, `other` with the other head."""
    work = tmp_path_factory.mktemp('plain')
    common = [f'{split}_dataloader.dataset.data_root={scenes}' for split in ('train', 'val', 'test')]
    common += [f'model.backbone.base={tiny_base}', 'train_dataloader.batch_size=2', 'default_hooks.logger.interval=1']

    def train(name, folder, iterations, *options):
        length = [f'train_cfg.max_iters={iterations}', f'train_cfg.val_interval={iterations}']
        length += [f'visualizer.name={folder}{iterations}']  # a process has one visualizer of a name
        return [
            'tools/train.py',
            CONFIGS[name],
            '--work-dir',
            work / folder,
            *options,
            '--cfg-options',
            *common,
            *length,
        ]

    def test(name, checkpoint):
        places = ['--work-dir', work / f'{name}-test', '--out', work / f'{name}-test' / 'maps']
        return ['tools/test.py', CONFIGS[name], work / checkpoint, *places, '--cfg-options', *common]

    done = tools(
        train('fcn', 'whole', 4),
        train('fcn', 'cut', 2),
        train('fcn', 'cut', 4, '--resume'),
        test('fcn', 'whole/iter_4.pth'),
        train('segformer', 'other', 2),
        test('segformer', 'other/iter_2.pth'),
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return work


def losses(folder):
    """Iteration -> loss, later runs winning."""
    records = [
        json.loads(line)
        for file in sorted(Path(folder).glob('*/vis_data/scalars.json'))
        for line in file.read_text().splitlines()
    ]
    return {record['step']: record['loss'] for record in records if 'loss' in record}


@pytest.mark.parametrize('name', CONFIGS)
def test_it_trains_and_predicts(work, name, scenes):
    record = json.loads((work / f'{name}-test' / 'metrics.json').read_text())
    assert 0 <= record['metrics']['mIoU'] <= 100 and record['images'] == 4
    assert len(list((work / f'{name}-test' / 'maps').glob('*.png'))) == 4
    assert set(losses(work / 'other')) == {1, 2}


def test_resuming_gives_the_losses_of_the_whole_run(work):
    whole, cut = losses(work / 'whole'), losses(work / 'cut')
    assert set(whole) == set(cut) == {1, 2, 3, 4}
    assert max(abs(whole[step] - cut[step]) for step in whole) <= 1e-6, (whole, cut)


def test_checkpoint_is_small_and_says_what_it_was_trained_on(work, tiny_base):
    state = load_local(work / 'whole' / 'iter_4.pth')['state_dict']
    assert any('lora_A' in key for key in state) and not any('.vae.' in key for key in state)
    record = read_provenance(state['backbone._extra_state'])
    assert record['base']['name'] == tiny_base.name and len(record['classes']) == 12
    first = load_local(work / 'cut' / 'iter_2.pth')['state_dict']
    moved = [key for key in state if 'lora_B' in key and not (state[key] == first[key]).all()]
    assert len(moved) == sum('lora_B' in key for key in state)
