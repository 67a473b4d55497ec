"""Model cards, metrics, licences and the hub."""

import json
import shutil

import pytest
import yaml
from fetch_server import Files, serving, sha
from packed_models import manifest_of
from tiny_segmentors import shipped, write_checkpoint

import rass_mm
from rass_mm.errors import ConfigError, DownloadError, PackError
from rass_mm.files.hashing import content_hash
from rass_mm.inference.packs.card import code, plain, table
from rass_mm_cli.licences import NOT_STATED, conflicts, data_term, term
from rass_mm_cli.main import main

COMMIT = 'b' * 40


@pytest.fixture
def record(models):
    """The record of a test of the ResNet, as `rass-mm test` writes it."""
    return {
        **{'kind': 'test', 'config': 'configs/baselines/resnet_scenes_tiny.py', 'data': {'img_path': 'img_lq/val'}},
        **{'protocol': 'mIoU over all pixels of 4 images', 'command': 'rass-mm test x ```; rm -rf', 'images': 4},
        **{'metrics': {'mIoU': 41.25, 'aAcc': 77.0}, 'versions': {}, 'seed': 0, 'device': 'cpu'},
        'checkpoint_hash': content_hash(models.plain),
    }


def front(text):
    return yaml.safe_load(text.split('---\n')[1])


def packed(models, tmp_path, record, *options):
    (tmp_path / 'metrics.json').write_text(json.dumps(record))
    return main(
        ['pack', str(models.plain), str(tmp_path / 'pack'), '--metrics', str(tmp_path / 'metrics.json'), *options]
    )


def test_card_is_made_from_the_metrics(models, record, tmp_path):
    assert packed(models, tmp_path, record, '--licence', 'CC BY-NC 4.0') == 0
    text = (tmp_path / 'pack' / 'README.md').read_text()
    assert front(text) == {
        **{'library_name': 'rass_mm', 'pipeline_tag': 'image-segmentation', 'license': 'cc-by-nc-4.0'},
        'tags': ['semantic-segmentation', 'rass_mm'],
    }
    for words in ('| mIoU | 41.25 |', '| aAcc | 77 |', 'mIoU over all pixels of 4 images', 'Images: 4.', '| 6 | car |'):
        assert words in text
    assert '````bash\nrass-mm test x ```; rm -rf\n````' in text
    assert 'rass-mm segment photos/ out/ --checkpoint FOLDER' in text and '| torch |' in text
    assert json.loads((tmp_path / 'pack' / 'metrics.json').read_text())['metrics'] == record['metrics']


def test_metrics_of_other_weights_are_refused(models, record, tmp_path, capsys):
    assert packed(models, tmp_path, {**record, 'checkpoint_hash': 'f' * 16}) == 1
    assert 'belongs to other weights' in capsys.readouterr().err and not (tmp_path / 'pack').exists()
    assert packed(models, tmp_path, {**record, 'metrics': {}}) == 1
    assert 'metrics.json: metrics' in capsys.readouterr().err
    del record['checkpoint_hash']
    assert packed(models, tmp_path, record) == 0
    assert 'does not contain the hash of the tested weights' in (tmp_path / 'pack' / 'README.md').read_text()


def test_nothing_is_invented(make):
    text = (make('restorer') / 'README.md').read_text()
    assert 'license' not in front(text) and '| base | tiny | not stated |' in text
    assert 'No test was packed with this model.' in text and '`$RASS_MM_BASES`' in text
    assert manifest_of(make('restorer'))['licence'] == NOT_STATED


@pytest.mark.parametrize('text', ['a|b', '<script>', '# x', '[x](y)', '`x`', '![x](y)', 'a\n\n## b'])
def test_names_cannot_change_the_card(text):
    lines = table(('name',), [(text,)]).splitlines()
    assert len(lines) == 3 and lines[2] == f'| {plain(text)} |'
    assert not any(f'{sign}' in plain(text).replace(f'\\{sign}', '') for sign in '|<#[`!')
    assert code(f'x {text}').splitlines()[-1] not in text or not text


def test_permissive_licence_on_noncommercial_data_is_a_warning(tmp_path, caplog):
    checkpoint = write_checkpoint(tmp_path / 'camvid.pth', shipped('baselines/resnet_camvid_tiny.py'), meta={})
    assert main(['pack', str(checkpoint), str(tmp_path / 'pack'), '--licence', 'Apache-2.0']) == 0
    assert 'Apache-2.0' in caplog.text and 'CamVid is CC BY-NC 4.0' in caplog.text
    manifest = manifest_of(tmp_path / 'pack')
    assert manifest['terms'] == [data_term('CamVidDataset', '')] and len(manifest['warnings']) == 1
    text = (tmp_path / 'pack' / 'README.md').read_text()
    assert '**Warning**' in text and '| data | CamVid | CC BY-NC 4.0 | Commercial use is not allowed. |' in text


def test_conflicts_name_both():
    rail = {**term('base', 'sd'), 'licence': 'CreativeML Open RAIL++-M', 'forbids': 'Attachment A.'}
    ade, scenes = data_term('ADE20KDataset', ''), data_term('ScenesDataset', '')
    unknown = data_term('BaseSegDataset', 'mine')
    assert len(conflicts('MIT', [rail, ade, scenes, unknown])) == 2
    assert len(conflicts('CreativeML Open RAIL++-M', [rail, ade])) == 1
    assert conflicts('CC BY-NC 4.0', [ade, rail]) == conflicts(NOT_STATED, [ade, rail]) == []
    assert unknown['licence'] == NOT_STATED


class Hub(Files):
    """Minimal hub with one repository, `me/model`."""

    def do_HEAD(self):  # noqa: N802
        self.answer(False)

    def do_GET(self):  # noqa: N802
        self.answer(True)

    def answer(self, body):
        name = self.path.removeprefix('/me/model/resolve/main/')
        self.server.asked.append((name, None))
        content = self.server.contents.get(name)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        for key, value in (('Content-Length', len(content)), ('ETag', f'"{sha(content)}"'), ('X-Repo-Commit', COMMIT)):
            self.send_header(key, str(value))
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def hub(make, monkeypatch):
    import huggingface_hub.constants as constants

    folder = make('plain')
    with serving(Hub) as running:
        files = [file for file in folder.rglob('*') if file.is_file()]
        running.contents = {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}
        running.contents['other.py'] = b'raise SystemExit'
        address = f'http://127.0.0.1:{running.server_port}'
        monkeypatch.setattr(constants, 'ENDPOINT', address)
        monkeypatch.setattr(
            constants, 'HUGGINGFACE_CO_URL_TEMPLATE', address + '/{repo_id}/resolve/{revision}/{filename}'
        )
        yield running


def asked(hub):
    return {name for name, _ in hub.asked if not name.startswith('/api/')}  # huggingface_hub asks for its own data


def test_hub_is_asked_only_on_request(hub, make, tmp_path):
    with pytest.raises(DownloadError, match='local_files_only=False'):
        rass_mm.Segmentor.from_pretrained('me/model', cache_dir=tmp_path)
    assert hub.asked == [] and list(tmp_path.iterdir()) == []
    model = rass_mm.Segmentor.from_pretrained('me/model', cache_dir=tmp_path, local_files_only=False, device='cpu')
    assert model.classes == manifest_of(make('plain'))['classes']
    assert asked(hub) == {'pack.json', *manifest_of(make('plain'))['files']}
    hub.asked.clear()
    assert rass_mm.Segmentor.from_pretrained('me/model', cache_dir=tmp_path, device='cpu') and hub.asked == []


def test_hub_with_changed_weights_is_refused(hub, tmp_path):
    hub.contents['model.safetensors'] = hub.contents['model.safetensors'][:-1] + b'x'
    with pytest.raises(PackError, match='model.safetensors was changed'):
        rass_mm.Segmentor.from_pretrained('me/model', cache_dir=tmp_path, local_files_only=False)
    hub.contents['pack.json'] = b'{}'
    shutil.rmtree(tmp_path / 'me--model@main')
    hub.asked.clear()
    with pytest.raises(PackError, match=r'pack\.json'):
        rass_mm.Segmentor.from_pretrained('me/model', cache_dir=tmp_path, local_files_only=False)
    assert asked(hub) == {'pack.json'}


@pytest.mark.parametrize('name', ['../x', 'a/b/c', 'no such', 'http://x/y'])
def test_names_of_repositories_are_checked(name, tmp_path):
    with pytest.raises(DownloadError, match='neither a folder nor the name of a repository'):
        rass_mm.Segmentor.from_pretrained(name, cache_dir=tmp_path, local_files_only=False)


def test_file_that_packs_do_not_contain_is_named():
    from rass_mm.inference.packs.configs import config_to_pack

    config = shipped('baselines/resnet_scenes_tiny.py')
    for key, value in (('weights', 'ram.pth'), ('cache_of', '/home/me/x'), ('file', '../x')):
        model = {**config.model.to_dict(), 'prompt': {'type': 'Tagger', key: value}}
        with pytest.raises(ConfigError, match=f'model.prompt.{key}='):
            config_to_pack(config, model, [], {}, None)
