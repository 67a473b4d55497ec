"""Checks of the data folders of a config before models are built."""

import json

import pytest
from mmseg.datasets import BaseSegDataset

from rass_mm.datasets.preflight import check_data_folders, check_labels
from rass_mm.errors import DataError


class OwnSuffix(BaseSegDataset):
    """Data set of a user, whose constructor sets the suffixes."""

    def __init__(self, **kwargs):
        super().__init__(img_suffix='_rgb.png', seg_map_suffix='_id.png', **kwargs)


class OwnFolder(BaseSegDataset):
    """Data set of a user, whose constructor changes a folder."""

    def __init__(self, data_root, img_suffix='.png', **kwargs):
        super().__init__(data_root=f'{data_root}/images', img_suffix=img_suffix, **kwargs)


class OwnList(BaseSegDataset):
    """Data set of a user, whose list of images is JSON, and whose images are arrays in one file."""

    def load_data_list(self):
        with open(self.ann_file) as file:
            return [{'img_path': f'{self.data_prefix["img_path"]}#{name}'} for name in json.load(file)]


class Failing(BaseSegDataset):
    """Data set of a user that cannot be built before its files exist."""

    def __init__(self, **kwargs):
        raise RuntimeError('not yet')


def loader(root, prefix='images/train', **dataset):
    return {
        'dataset': {'data_root': str(root), 'data_prefix': {'img_path': prefix, 'seg_map_path': 'labels'}, **dataset}
    }


def refusal(config, name='train_dataloader'):
    with pytest.raises(DataError) as caught:
        check_data_folders(config, name)
    return str(caught.value)


@pytest.fixture
def root(tmp_path):
    (tmp_path / 'images' / 'train').mkdir(parents=True)
    return tmp_path


def test_missing_folder_names_itself_and_the_option(tmp_path):
    message = refusal(loader(tmp_path), 'val_dataloader')
    assert message.startswith('val_dataloader: ') and f'{tmp_path}/images/train does not exist' in message
    assert '--cfg-options val_dataloader.dataset.data_root=' in message


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / 'images').write_text('')
    assert 'does not exist' in refusal(loader(tmp_path, 'images'))


def test_empty_folder_names_itself_suffix_and_options(root):
    message = refusal(loader(root, img_suffix='.png'))
    assert f'{root}/images/train contains no images that end in .png' in message
    assert 'train_dataloader.dataset.data_root=' in message and 'train_dataloader.dataset.img_suffix' in message


def test_images_of_another_suffix_do_not_count(root):
    (root / 'images' / 'train' / 'a.jpg').touch()
    assert 'end in .png' in refusal(loader(root, img_suffix='.png'))
    check_data_folders(loader(root, img_suffix='.jpg'), 'train_dataloader')


@pytest.mark.parametrize('name', ['notes.txt', 'a.png.part'])
def test_other_files_are_not_images(root, name):
    (root / 'images' / 'train' / name).touch()
    assert '.jpg' in refusal(loader(root)) and '.png' in refusal(loader(root))


@pytest.mark.parametrize('name', ['a.png', 'city/b.jpg', 'c.tif'])
def test_any_image_is_accepted_without_a_suffix(root, name):
    file = root / 'images' / 'train' / name
    file.parent.mkdir(exist_ok=True)
    file.touch()
    check_data_folders(loader(root), 'train_dataloader')


def test_suffixes_longer_than_the_file_extension_are_supported(root):
    (root / 'images' / 'train' / 'a_leftImg8bit.png').touch()
    check_data_folders(loader(root, img_suffix='_leftImg8bit.png'), 'train_dataloader')
    assert '_right.png' in refusal(loader(root, img_suffix='_right.png'))


def test_an_absolute_prefix_and_no_root_work(root):
    folder = root / 'images' / 'train'
    assert str(folder) in refusal(loader('', str(folder)))
    (folder / 'a.png').touch()
    check_data_folders(loader('', str(folder)), 'train_dataloader')
    check_data_folders({'dataset': {'data_root': None, 'data_prefix': {'img_path': str(folder)}}}, 'train_dataloader')


@pytest.mark.parametrize(
    'config',
    [
        None,
        {},
        {'dataset': {'type': 'RepeatDataset', 'dataset': {'data_root': '/nowhere'}}},
        {'dataset': {'data_root': '/nowhere', 'data_prefix': None}},
        {'dataset': {'data_root': '', 'data_prefix': {'img_path': 's3://bucket/images'}}},
    ],
)
def test_data_without_a_local_folder_is_not_checked(config):
    assert check_data_folders(config, 'val_dataloader') is None


def test_suffixes_and_folders_that_a_constructor_sets_are_followed(root):
    own = loader(root, type=OwnSuffix)
    assert 'end in _rgb.png' in refusal(own)
    (root / 'images' / 'train' / 'a_rgb.png').touch()
    check_data_folders(own, 'train_dataloader')
    assert f'{root}/images/images/train does not exist' in refusal(loader(root, type=OwnFolder))
    check_data_folders(loader(root, 'train', type=OwnFolder, img_suffix='_rgb.png'), 'train_dataloader')
    check_data_folders(loader(root, type=Failing), 'train_dataloader')


@pytest.mark.parametrize('content', [b'["a", "b"]', b'\x00\xff', b''])
def test_a_class_with_a_list_of_its_own_is_not_checked(root, content):
    (root / 'list').write_bytes(content)
    own = {'type': OwnList, 'ann_file': 'list', 'pipeline': [{'type': 'LoadLabelStrict'}]}
    check_data_folders(loader(root, 'arrays.npz', **own), 'train_dataloader')
    check_labels({'train_dataloader': loader(root, 'arrays.npz', **own)}, 'train_dataloader')


def test_several_suffixes_are_accepted(root):
    for suffix in (('.PNG', '.npy'), ['.PNG', '.npy']):
        several = loader(root, img_suffix=suffix)
        (root / 'images' / 'train' / 'a.PNG').unlink(missing_ok=True)
        assert 'end in .PNG, .npy' in refusal(several)
        (root / 'images' / 'train' / 'a.PNG').touch()
        check_data_folders(several, 'train_dataloader')
