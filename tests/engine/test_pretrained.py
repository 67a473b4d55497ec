"""Pretrained weight files of backbones: missing, of another network, with other names, and valid."""

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModule, ModuleList
from torch import nn

import rass_mm
from rass_mm.engine.pretrained import check_pretrained
from rass_mm.errors import CheckpointError
from rass_mm_cli.main import main


class Backbone(BaseModule):
    """Network of twelve tensors that starts from a file."""

    def __init__(self, checkpoint, width=4, **init):
        super().__init__(init_cfg=dict(type='Pretrained', checkpoint=str(checkpoint), **init))
        self.layers = ModuleList([nn.Linear(width, width) for _ in range(6)])


class Model(nn.Module):
    def __init__(self, *args, **kwargs):
        super().__init__()
        self.backbone = Backbone(*args, **kwargs)


@pytest.fixture
def file(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / 'backbone.pth'
    torch.save(Backbone('').state_dict(), path)
    return path


def rewritten(file, change):
    torch.save(change(torch.load(file)), file)
    return file


def refusal(*args, **kwargs):
    with pytest.raises(CheckpointError) as caught:
        check_pretrained(Model(*args, **kwargs))
    return str(caught.value)


@pytest.mark.parametrize(
    'change',
    [
        lambda state: state,
        lambda state: {'state_dict': state},
        lambda state: {f'module.{key}': value for key, value in state.items()},
        lambda state: {**state, 'head.weight': torch.zeros(1000, 4)},
        lambda state: dict(list(state.items())[1:]),
    ],
    ids=['plain', 'checkpoint', 'parallel', 'classifier', 'one missing'],
)
def test_a_matching_file_is_accepted_and_loaded_by_mmengine(file, change):
    expected = torch.load(file)
    model = Model(rewritten(file, change))
    check_pretrained(model)
    model.backbone.init_weights()
    own = model.backbone.state_dict()
    assert sum(torch.equal(own[key], value) for key, value in expected.items()) >= len(expected) - 1


def test_a_missing_file_names_itself_and_what_to_do(tmp_path):
    message = refusal(tmp_path / 'absent.pth')
    assert f'{tmp_path}/absent.pth' in message and 'nothing is downloaded' in message
    assert '--cfg-options model.backbone.init_cfg.checkpoint=FILE' in message and 'init_cfg=None' in message


def test_other_names_and_other_shapes_are_refused(file):
    rewritten(file, lambda state: {key.replace('layers', 'blocks'): value for key, value in state.items()})
    message = refusal(file)
    assert '12 of 12 tensors' in message and 'layers.0.weight' in message and 'blocks.0.weight' in message
    file.unlink()
    torch.save(Backbone('', width=5).state_dict(), file)
    assert '12 of 12 tensors' in refusal(file)


def test_two_missing_tensors_of_twelve_are_too_many(file):
    rewritten(file, lambda state: dict(list(state.items())[2:]))
    assert '2 of 12 tensors' in refusal(file)


@pytest.mark.parametrize('prefix', ['backbone', 'backbone.'])
def test_a_prefix_takes_one_part_of_a_whole_model(file, prefix):
    rewritten(file, lambda state: {f'backbone.{key}': value for key, value in state.items()})
    assert '12 of 12' in refusal(file)
    model = Model(file, prefix=prefix)
    check_pretrained(model)
    model.backbone.init_weights()
    expected = torch.load(file)['backbone.layers.3.weight']
    assert torch.equal(model.backbone.layers[3].weight, expected)


def test_code_in_a_file_is_refused(file):
    torch.save({'state_dict': {}, 'hook': print}, file)
    assert 'print' in refusal(file)


def test_models_without_such_files_are_not_checked():
    check_pretrained(nn.Linear(2, 2))


def test_an_address_is_refused_with_the_command_that_downloads_it():
    message = refusal('https://example.org/backbone.pth')
    assert 'curl -L -o backbone.pth https://example.org/backbone.pth' in message


@pytest.mark.parametrize('name', ['mask2former_swin_l', 'segformer_b0', 'segformer_b5', 'segnext_l'])
def test_baselines_name_local_files(name):
    config = Config.fromfile(str(rass_mm.config_path(f'baselines/{name}_ft_ade20k_lq.py')))
    init = config.model.backbone.init_cfg
    assert init.type == 'Pretrained' and init.checkpoint.startswith('pretrained/') and '://' not in init.checkpoint


def test_training_without_the_file_stops_with_that_message(scenes, tmp_path, capsys):
    options = [f'{split}_dataloader.dataset.data_root={scenes}' for split in ('train', 'val', 'test')]
    options += [f'{split}_dataloader.dataset.type=ScenesDataset' for split in ('train', 'val', 'test')]
    options += ['train_dataloader.dataset.data_prefix.img_path=img_dir/train']
    options += ['train_dataloader.dataset.img_suffix=.png', 'val_dataloader.dataset.data_prefix.img_path=img_lq/val']
    options += [f'{split}_dataloader.dataset.data_prefix.seg_map_path=ann_dir/{split}' for split in ('train', 'val')]
    options += [f'model.backbone.init_cfg.checkpoint={tmp_path}/absent.pth']
    name = 'baselines/segformer_b0_ft_ade20k_lq.py'
    assert main(['train', name, '--work-dir', str(tmp_path / 'run'), '--cfg-options', *options]) == 1
    assert f'model.backbone starts from the pretrained weights {tmp_path}/absent.pth' in capsys.readouterr().err
