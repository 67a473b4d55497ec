"""The page in headless Chromium, as a user sees it. `tools/install_chromium.sh` installs the browser."""

import contextlib
import io
import shutil
import urllib.parse
import zipfile
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from app_process import options_of, running_app
from app_requests import call, upload

pytestmark = pytest.mark.slow

CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
SECONDS = 60_000
LIMITS = ('--max-pixels', 250_000, '--max-megabytes', 1, '--max-files', 6)


@pytest.fixture(scope='module')
def browser():
    if CHROMIUM is None:
        pytest.skip('no Chromium found; tools/install_chromium.sh installs it')
    sync = pytest.importorskip('playwright.sync_api', reason='playwright is missing: pip install playwright')
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
        yield browser
        browser.close()


@pytest.fixture(scope='module')
def app(browser, model_files, tmp_path_factory):
    temporary = tmp_path_factory.mktemp('app') / 'temporary'
    temporary.mkdir()
    with running_app([*options_of(model_files), *LIMITS], temporary) as app:
        yield app


@contextlib.contextmanager
def visit(browser, app, width=1400):
    """Opens the page in a session of its own. At the end, there was no error, and no request to another host."""
    context = browser.new_context(viewport={'width': width, 'height': 900}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(SECONDS)
    seen = SimpleNamespace(hosts=set(), errors=[], failed=[])
    page.on('request', lambda request: seen.hosts.add(urllib.parse.urlsplit(request.url).netloc))
    page.on('console', lambda line: seen.errors.append(line.text) if line.type == 'error' else None)
    page.on('pageerror', lambda error: seen.errors.append(str(error)))
    page.on('response', lambda answer: seen.failed.append(answer.url) if answer.status >= 500 else None)
    page.seen = seen
    page.goto(app.address)
    page.wait_for_selector('#run')
    yield page
    context.close()
    own = urllib.parse.urlsplit(app.address).netloc
    assert seen.hosts - {''} == {own}, seen.hosts  # '' is that of data: and blob:
    assert not seen.errors and not seen.failed, (seen.errors, seen.failed)


def says(page, text, place='#message'):
    page.locator(place).get_by_text(text).wait_for()


def choose(page, path):
    page.set_input_files('#photo input[type=file]', path)


def pixels_of(page, place, number=0):
    """The pixels of a shown picture, (h, w, 3) BGR."""
    image = page.locator(f'{place} img').nth(number)
    image.wait_for()
    answer = page.request.get(image.get_attribute('src'))
    return cv2.imdecode(np.frombuffer(answer.body(), np.uint8), cv2.IMREAD_COLOR)


def changed(page, place, action):
    """Does something that shows another picture, and waits for it."""
    before = page.locator(f'{place} img').get_attribute('src')
    action()
    script = '([place, before]) => (document.querySelector(place + " img")?.src ?? before) !== before'
    page.wait_for_function(script, arg=[place, before])


def downloaded(page, place):
    with page.expect_download() as download:
        page.click(place)
    return download.value.path().read_bytes(), download.value.suggested_filename


def test_an_upload_is_degraded_restored_segmented_and_downloaded(browser, app, photo):
    with visit(browser, app) as page:
        assert '250,000 pixels and 1 MB' in page.inner_text('#photo')  # before the upload
        choose(page, photo)
        says(page, 'Then select Run')
        clean = cv2.resize(cv2.imread(str(photo)), None, fx=3, fy=3, interpolation=cv2.INTER_NEAREST)
        assert (pixels_of(page, '#preview') == clean).all()
        changed(page, '#preview', lambda: page.click('#mode label >> nth=1'))
        degraded = pixels_of(page, '#preview')
        assert degraded.shape == clean.shape and (degraded != clean).any()
        page.click('#run')
        says(page, 'Finished.')
        assert (pixels_of(page, '#compare') == degraded).all()
        assert page.locator('#shares tr').count() > 2
        assert {'sky', 'road'} & set(page.locator('#segmentor').inner_text().split())
        check_attention(page)
        check_downloads(page, app, photo)


def check_attention(page):
    """Another word gives another map."""
    first = pixels_of(page, '#attention')
    page.click('#word input')
    changed(page, '#attention', lambda: page.get_by_role('option', name='car').click())
    assert (pixels_of(page, '#attention') != first).any()


def check_downloads(page, app, photo):
    """The files are those of the HTTP service."""
    given = upload(app.address, photo)
    (degraded,) = call(app.address, 'degrade', given, 'recipe', 1, 0, 0, 1, 0, 0, 100)
    (expected,) = call(app.address, 'restore', degraded)
    restored, name = downloaded(page, '#download-restored')
    assert restored == page.request.get(expected['url']).body() and name == 'street_degraded_restored.png'
    labels, _ = downloaded(page, '#download-labels')
    assert cv2.imdecode(np.frombuffer(labels, np.uint8), cv2.IMREAD_COLOR).shape == (90, 131, 3)
    everything, _ = downloaded(page, '#download-all')
    with zipfile.ZipFile(io.BytesIO(everything)) as archive:
        assert len(archive.namelist()) == 7 and archive.testzip() is None


def test_sliders_degrade_an_example(browser, app):
    with visit(browser, app) as page:
        page.click('#examples button >> nth=1')
        says(page, 'Then select Run')
        clean = pixels_of(page, '#preview')
        assert clean.shape == (512, 512, 3)
        page.click('#mode label >> nth=2')
        slider = page.get_by_role('slider', name='noise: sigma').first
        slider.fill('30')
        changed(page, '#preview', lambda: slider.dispatch_event('pointerup'))
        noise = pixels_of(page, '#preview').astype(float) - clean
        assert 15 < noise.std() < 35


def test_wrong_and_huge_files_are_refused_on_the_page(browser, app, hostile, photo):
    messages = {path.name: (path, message) for path, message in hostile.items()}
    with visit(browser, app) as page:
        choose(page, photo)
        says(page, 'Then select Run')
        for name in ('notes.png', 'huge.png', 'cut.jpg', 'empty.png'):
            path, message = messages[name]
            page.click('#photo button[aria-label*=lear]')
            says(page, 'Choose a photo')
            choose(page, path)
            says(page, message)
            assert page.locator('#preview img').count() == 0
            page.click('#run')
            says(page, 'Choose a photo or an example first')


def test_two_users_do_not_see_each_other(browser, app, photo):
    with visit(browser, app) as first, visit(browser, app, width=420) as second:
        choose(first, photo)
        second.click('#examples button >> nth=0')
        for page in (first, second):
            says(page, 'Then select Run')
        for page in (first, second):
            page.click('#run')
        for page in (first, second):
            says(page, 'Finished.')
        assert pixels_of(first, '#compare').shape == (270, 393, 3)
        assert pixels_of(second, '#compare').shape == (512, 512, 3)
        assert downloaded(first, '#download-restored')[1] == 'street_restored.png'
        assert downloaded(second, '#download-restored')[1] == 'scene_1_restored.png'


def test_a_folder_becomes_a_zip_file(browser, app, photo, hostile):
    notes = next(path for path in hostile if path.name == 'notes.png')
    with visit(browser, app) as page:
        page.get_by_role('tab', name='Folder').click()
        page.set_input_files('#files input[type=file]', [photo, notes])
        page.locator('#files').get_by_text('notes').wait_for()
        page.click('#run-folder')
        says(page, '1 of 2 images', '#folder-message')
        says(page, 'not an image', '#folder-message')
        data, name = downloaded(page, '#download-folder')
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            assert name == 'rass-mm.zip' and 'labels/street.png' in archive.namelist()


@pytest.mark.parametrize('width', [420, 1400])
def test_nothing_is_wider_than_the_window(browser, app, photo, width):
    with visit(browser, app, width) as page:
        choose(page, photo)
        says(page, 'Then select Run')
        page.click('#run')
        says(page, 'Finished.')
        assert page.evaluate('document.documentElement.scrollWidth') <= width
