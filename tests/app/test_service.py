"""Results of the app are those of the commands and functions, and uploads are checked like their inputs."""

import csv
import io
import zipfile
from dataclasses import replace

import cv2
import numpy as np
import pytest

from rass_mm.app.degrading import Degradation
from rass_mm.app.folder import process_folder
from rass_mm.app.limits import Limits
from rass_mm.app.models import ModelFiles, Models, load_models
from rass_mm.app.pictures import masks, shares_table, shown
from rass_mm.app.service import Service
from rass_mm.errors import ConfigError, DataError
from rass_mm.files.images import read_picture
from rass_mm.inference.attention import class_attention
from rass_mm.inference.folder import restore_files
from rass_mm.inference.modes import SegmentOptions
from rass_mm.inference.restore import RestoreOptions
from rass_mm.inference.segment import segment_files


def test_restored_images_are_those_of_the_command(service, models, photo, tmp_path):
    seen = []
    file, _ = service.restore(photo, seen.append)
    restore_files(photo, tmp_path / 'out.png', lambda: models.restorer.network, RestoreOptions())
    assert file.read_bytes() == (tmp_path / 'out.png').read_bytes()
    assert file.name == 'street_restored.png' and seen[-1] == 1


def test_progress_counts_windows(service, models, photo):
    seen = []
    models.restorer.options, before = RestoreOptions(window=64, overlap=16), models.restorer.options
    try:
        service.restore(photo, seen.append)
    finally:
        models.restorer.options = before
    assert len(seen) > 3 and seen == sorted(seen) and seen[-1] == 1


def test_label_maps_are_those_of_the_command(service, models, photo, tmp_path):
    for which, model in models.segmentors.items():
        found = service.segment(photo, which)
        segment_files(photo, tmp_path / which, lambda model=model: model, SegmentOptions())
        expected = (tmp_path / which / 'labels' / 'street.png').read_bytes()
        assert service.labels(photo, found).read_bytes() == expected
        assert service.overlay(photo, found).read_bytes() == (tmp_path / which / 'overlays' / 'street.png').read_bytes()


def test_attention_is_that_of_the_function(service, models, photo):
    found = service.attention(photo, 'car')
    pixels = read_picture(photo).pixels
    expected = class_attention(models.restorer.network, pixels, ['sky', 'car', 'road'])['car']
    assert found.peak == pytest.approx(float(expected.max()))
    assert found.picture.shape == shown((pixels * 255).astype(np.uint8)).shape


def test_large_images_are_reduced_for_the_attention(service, tmp_path):
    cv2.imwrite(str(tmp_path / 'wide.png'), np.random.default_rng(0).integers(0, 256, (130, 900, 3), np.uint8))
    assert service.attention(tmp_path / 'wide.png', 'sky').picture.shape == (74, 512, 3)


def test_a_degraded_copy_is_the_input_of_the_models(service, photo):
    degradation = Degradation('recipe', seed=5)
    file = service.degrade(photo, degradation)
    assert (cv2.imread(str(file)) == degradation.of(cv2.imread(str(photo)))).all()
    assert service.degrade(photo, Degradation()) == photo


def test_hostile_files_are_refused_by_name(service, hostile):
    functions = [service.restore, service.segment, lambda path: service.attention(path, 'sky')]
    functions.append(lambda path: service.degrade(path, Degradation('recipe')))
    for path, message in hostile.items():
        for function in functions:
            with pytest.raises(DataError, match=message) as caught:
                function(path)
            assert path.name in str(caught.value) and str(path.parent) not in str(caught.value)
    with pytest.raises(DataError, match='no longer stored'):
        service.restore(service.workspace.folder / 'gone.png')


def test_what_is_not_loaded_is_named(service, photo):
    empty = replace(service, models=Models())
    for call, words in ((empty.restore, '--adapter'), (empty.segment, '--checkpoint')):
        with pytest.raises(ConfigError, match=words):
            call(photo)
    with pytest.raises(ConfigError, match="'other'"):
        service.segment(photo, 'other')
    with pytest.raises(ConfigError, match='sky, car, road'):
        service.attention(photo, 'tree')


def test_a_folder_has_the_results_of_the_commands(service, photo, hostile):
    notes = next(path for path in hostile if path.name == 'notes.png')
    seen = []
    found = process_folder(
        service, [photo, notes, photo], ['restored', 'labels', 'overlays'], lambda *progress: seen.append(progress)
    )
    assert found.finished == ['street.png', 'street_2.png'] and list(found.failed) == ['notes.png']
    assert seen == [(0, 3, 'street.png'), (1, 3, 'notes.png'), (2, 3, 'street.png')]
    with zipfile.ZipFile(found.archive) as archive:
        names = {f'{kind}/{name}.png' for kind in ('restored', 'labels', 'overlays') for name in ('street', 'street_2')}
        assert set(archive.namelist()) == names | {'failed.txt', 'shares.csv', 'shares.json'}
        assert archive.read('restored/street.png') == service.restore(photo)[0].read_bytes()
        rows = list(csv.DictReader(io.StringIO(archive.read('shares.csv').decode())))
        assert [row['image'] for row in rows] == ['street.png', 'street_2.png']
        assert 'not an image' in archive.read('failed.txt').decode()
    assert [file.name for file in found.archive.parent.iterdir()] == ['rass-mm.zip']


def test_a_folder_has_limits(service, photo):
    for paths, outputs, words in (
        ([], ['labels'], 'No images'),
        ([photo] * 7, ['labels'], 'at most 6'),
        ([photo], [], 'No output'),
        ([photo], ['pages'], 'restored, labels, overlays'),
        ([photo], [{}], 'not possible'),
    ):
        with pytest.raises((ConfigError, DataError), match=words):
            process_folder(service, paths, outputs)


def test_shares_are_shown_as_text(models, service, photo):
    found = service.segment(photo)
    found = replace(found, classes=['<script>', *found.classes[1:]])
    table = shares_table({'a & b': found})
    assert '<script>' not in table and 'a &amp; b' in table
    image, regions = masks(found)
    covered = sum((mask > 0).astype(int) for mask, _ in regions)
    assert image.shape[:2] == covered.shape and (covered == 1).all()


def test_the_base_is_for_models_that_have_one(models, model_files):
    """The ResNet has no base, and is loaded all the same."""
    assert models.baseline.predict(np.zeros((40, 40, 3), np.uint8)).labels.shape == (40, 40)
    alone = load_models(ModelFiles(checkpoint=model_files.baseline), device='cpu')
    assert Service(alone, Limits(), None).about()['attention'] == []


@pytest.mark.parametrize(
    'files, words',
    [
        ({}, 'no model'),
        ({'adapter': 'a'}, '--base'),
        ({'adapter': 'a', 'base': 'b', 'baseline': 'c'}, '--checkpoint'),
        ({'adapter': 'a', 'base': 'b', 'config': 'c'}, '--config needs --checkpoint'),
        ({'checkpoint': 'a', 'baseline_config': 'c'}, '--baseline-config needs --baseline'),
    ],
)
def test_missing_files_are_named(files, words):
    with pytest.raises(ConfigError, match=words):
        ModelFiles(**files)


def test_a_folder_that_takes_long_is_complete(service, photo):
    upload = service.workspace.new('upload', '.png')
    upload.write_bytes(photo.read_bytes())
    found = process_folder(service, [photo, upload], ['labels'], lambda *progress: service.workspace.sweep(-10))
    with zipfile.ZipFile(found.archive) as archive:
        assert len(found.finished) == 2 and {'labels/street.png', 'labels/upload.png'} <= set(archive.namelist())


def test_an_unexpected_error_of_one_image_does_not_end_a_folder(service, photo, monkeypatch):
    restore, calls = Service.restore, []

    def failing(self, path):
        calls.append(path)
        if len(calls) == 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return restore(self, path)

    monkeypatch.setattr(Service, 'restore', failing)
    found = process_folder(service, [photo] * 3, ['restored'])
    assert found.finished == ['street.png', 'street_3.png'] and 'too little memory' in found.failed['street_2.png']
    with zipfile.ZipFile(found.archive) as archive:
        assert set(archive.namelist()) == {'restored/street.png', 'restored/street_3.png', 'failed.txt'}


def test_no_computation_starts_when_the_app_ends(service, photo):
    service.workspace.close()
    for function in (service.restore, service.segment):
        with pytest.raises(DataError, match='stopped'):
            function(photo)
