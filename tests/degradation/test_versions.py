"""Recipe versions: version 1 equals the draws and files from before versions; version 2 also draws the last resize.

`manifest_version1.jsonl` and all hashes were created with the code before version 2. The four images of the manifest
were chosen so that errors of 3e-6 after every step change none of their pixels, so every processor writes the same
bytes.
"""

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import ConfigDict
from scipy.stats import chisquare

from rass_mm.degradation import applying, builder, drawing, planning, recipe, severity, transforms
from rass_mm.degradation.versions import lq_steps, manifest_version, step_version
from rass_mm.errors import ConfigError
from rass_mm_cli.main import run_command

OLD = Path(__file__).with_name('manifest_version1.jsonl')
FIRST = recipe.override(recipe.OSEDIFF, {'version': 1})
DRAWS = {
    (1, 1): 'cb4875838e657ed43217255f45cff4f1',
    (37, 53): '88fa700b3fce6a7392b64c1a37e655dc',
    (128, 128): 'b52a8b705e70371062863df7a3c8516b',
    (512, 683): '687a6bf4bd079ecaad31946091e18cfa',
}
PIXELS = {
    '001.png': '09a7796ecc3ce0ad592a2d06e4be8cad',
    '010.png': '22f43ba1be8e94375c3076cae887f836',
    '014.png': '8a529e18476312ab3a116e14339fa8d2',
    '015.png': '784f91411e8ffaf13c6f13129dc7706b',
}


def digest(data):
    return hashlib.sha256(data).hexdigest()[:32]


def drawn(settings, seed, height=48, width=64):
    return drawing.draw(settings, np.random.default_rng(seed), height, width)


def digest_of_draws(settings, *size):
    return digest(b''.join(json.dumps(drawn(settings, seed, *size)).encode() for seed in range(100)))


def picture():
    y, x, channel = np.mgrid[:12, :16, :3]
    return ((5 * y + 3 * x * (channel + 1) + y * x // 4) % 256).astype(np.uint8)


@pytest.fixture
def clean(tmp_path):
    """Provides the image folder of the old manifest."""
    (tmp_path / 'clean').mkdir()
    for name in PIXELS:
        cv2.imwrite(str(tmp_path / 'clean' / name), picture())
    return tmp_path / 'clean'


def pixels(folder):
    return {file.name: digest(cv2.imread(str(file)).tobytes()) for file in folder.glob('*.png')}


@pytest.mark.parametrize('size', DRAWS)
def test_version_1_draws_the_same_as_before(size):
    assert digest_of_draws(FIRST, *size) == DRAWS[size]


def test_version_1_with_other_settings_too():
    changes = {'first': {'jpeg_quality': [50, 60]}, 'final_sinc_prob': 0.3, 'version': 1}
    settings = recipe.override(recipe.OSEDIFF, changes)
    assert digest_of_draws(settings, 48, 64) == '0fa5bba704d9c0e866fc19daeb122d0b'


def test_version_2_draws_only_the_last_resize_differently():
    assert recipe.OSEDIFF.version == 2
    found, after_jpeg = [], []
    for seed in range(3000):
        old, new = (drawn(settings, seed)['steps'] for settings in (FIRST, recipe.OSEDIFF))
        backs = [next(step for step in steps if step.get('mode') == 'back') for steps in (old, new)]
        found.append(backs[1]['interpolation'])
        after_jpeg.append(new.index(backs[1]) > [step['op'] for step in new[-3:]].index('jpeg') + len(new) - 3)
        assert backs[0].pop('interpolation') == 'bilinear' and backs[1].pop('interpolation') in applying.INTERPOLATIONS
        assert old == new
    for order in (True, False):  # separately for JPEG before and after the resize
        chosen = [name for name, after in zip(found, after_jpeg, strict=True) if after == order]
        counts = [chosen.count(name) for name in applying.INTERPOLATIONS]
        assert sum(counts) > 1300 and chisquare(counts).pvalue > 0.01


def test_other_versions_are_refused():
    for wrong in (0, 3, '1', None):
        with pytest.raises(ConfigError, match='version is .* but it must be one of 1, 2'):
            recipe.override(recipe.OSEDIFF, {'version': wrong})


def test_old_manifest_replays_byte_for_byte():
    _, *lines = map(json.loads, OLD.read_text().splitlines())
    assert {line['image']: digest(applying.apply(picture(), line['parameters']).tobytes()) for line in lines} == PIXELS


def test_version_1_reproduces_the_old_copy(clean, tmp_path):
    builder.build_lq_dataset(clean, tmp_path / 'lq', recipe=FIRST)
    assert pixels(tmp_path / 'lq') == PIXELS
    old, new = (path.read_text().splitlines() for path in (OLD, tmp_path / 'lq' / 'manifest.jsonl'))
    headers = [json.loads(lines[0]) for lines in (old, new)]
    assert headers[0]['fingerprint'] == headers[1]['fingerprint'] and headers[1]['recipe']['version'] == 1
    parts = [[json.loads(line)[key] for line in lines[1:] for key in ('seed', 'parameters')] for lines in (old, new)]
    assert parts[0] == parts[1]


def test_versions_are_never_mixed_in_a_copy(clean, tmp_path, capsys):
    out = tmp_path / 'lq'
    out.mkdir()
    (out / 'manifest.partial.jsonl').write_text(''.join(OLD.read_text().splitlines(True)[:3]))  # an interrupted old run
    _, *lines = map(json.loads, (out / 'manifest.partial.jsonl').read_text().splitlines())
    for line in lines:
        cv2.imwrite(str(out / line['output']), applying.apply(picture(), line['parameters']))
    before = {file.name: file.read_bytes() for file in out.iterdir()}

    def make(*options):
        status = run_command('make-lq', [str(clean), str(out), '--workers', '1', *options])
        return status, ''.join(capsys.readouterr())

    status, message = make()
    assert status == 1 and {file.name: file.read_bytes() for file in out.iterdir()} == before
    assert 'recipe version 1, JPEG' in message and 'recipe version 2, JPEG' in message
    assert 'rass-mm make-lq --recipe-version 1' in message and 'another output folder' in message
    status, message = make('--recipe-version', '1')
    assert status == 0 and '(2 made now' in message and pixels(out) == PIXELS
    assert make()[0] == 1 and make('--recipe-version', '1')[0] == 0


def test_a_copy_of_version_2_is_not_continued_with_version_1(clean, tmp_path, capsys):
    arguments = [str(clean), str(tmp_path / 'lq'), '--workers', '1']
    assert run_command('make-lq', arguments) == 0
    header = json.loads((tmp_path / 'lq' / 'manifest.jsonl').read_text().splitlines()[0])
    assert header['recipe']['version'] == manifest_version(header) == 2
    assert run_command('make-lq', [*arguments, '--recipe-version', '1']) == 1
    assert 'make-lq --recipe-version 2' in capsys.readouterr().err
    assert run_command('make-lq', [*arguments, '--jpeg-chroma', 'repeat']) == 1
    message = capsys.readouterr().err
    assert 'JPEG chroma smooth' in message and 'JPEG chroma repeat' in message
    assert '(rass-mm make-lq --jpeg-chroma smooth)' in message


@pytest.mark.parametrize('version', recipe.VERSIONS)
def test_severity_and_transforms_follow_the_version(version):
    settings = recipe.override(recipe.OSEDIFF, {'version': version})
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    fixed = transforms.FixedDegradation('mixed', 1.0, recipe={'version': version})
    fresh = transforms.LQDegradation(recipe={'version': version})
    for number in range(30):
        seed = planning.image_seed(0, f'{number}.png')
        parameters = drawn(settings, seed)
        assert severity.at_severity('mixed', 1, 48, 64, seed, settings) == parameters
        result = fixed({'img': image, 'img_path': f'{number}.png'})['img']
        assert np.array_equal(result, applying.apply(image, parameters))
    backs = {
        step['interpolation']
        for _ in range(30)
        for step in fresh({'img': image})['degradation']['steps']
        if step.get('mode') == 'back'
    }
    assert backs == ({'bilinear'} if version == 1 else set(applying.INTERPOLATIONS))


def test_versions_are_found_in_configs_and_headers():
    steps = [
        {'type': 'LQDegradation'},
        {'type': 'mmseg.LQDegradation', 'recipe': {'version': 1}},
        {'type': 'LQDegradation', 'recipe': {'final_sinc_prob': 0}},
        {'type': 'LQDegradation', 'recipe': None},
    ]
    nested = ConfigDict(dataset={'datasets': [{'pipeline': [{'type': 'Other'}, *steps]}]}, batch_size=2)
    assert [step_version(step) for step in lq_steps(nested)] == [2, 1, 2, 2]
    assert list(lq_steps(None)) == list(lq_steps('LQDegradation')) == []
    assert [manifest_version(header) for header in ({}, {'recipe': {'first': {}}}, {'recipe': []})] == [1, 1, 1]
