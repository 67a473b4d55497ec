"""Checks of the data folders of a config before models are built."""

import pytest

from rass_mm.datasets.preflight import check_data_folders
from rass_mm.errors import DataError


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
