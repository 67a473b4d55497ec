"""Events of the tab for one image: an event that ends late never shows the results of another image."""

import shutil
import threading

import pytest

from rass_mm.app.controls import add_controls
from rass_mm.app.degrading import RANGES
from rass_mm.app.results import add_results
from rass_mm.app.single import MISSING, READY, Session, SingleTab
from rass_mm.app.toolkit import gradio
from rass_mm.errors import DataError

VALUES = [1, 0, *(allowed.neutral for allowed in RANGES.values())]


@pytest.fixture
def tab(service):
    with gradio.Blocks():
        return SingleTab(service, add_controls(service.limits, []), add_results(service.models), [])


@pytest.fixture
def session(tab, photo):
    session = Session()
    tab.choose(session, str(photo), 'recipe', VALUES)
    return session


def ran(tab, session, word='car'):
    return list(tab.run(session, word, lambda *args, **kwargs: None))


def message(tab, updates):
    return updates.get(tab.controls.message, '')


def test_a_run_shows_results_and_enables_its_button_again(tab, session):
    first, *updates, last = ran(tab, session)
    assert first[tab.controls.run]['interactive'] is False and last[tab.controls.run]['interactive'] is True
    assert 'Finished.' in message(tab, updates[-1])
    assert '“car”' in next(one for one in updates if tab.results.caption in one)[tab.results.caption]


def test_a_failure_of_the_attention_is_not_hidden_by_the_end(tab, session, monkeypatch):
    def attention(self, path, word):
        raise DataError('no attention today')

    monkeypatch.setattr(type(tab.service), 'attention', attention)
    *_, shown, _ = ran(tab, session)
    assert 'no attention today' in message(tab, shown)
    assert tab.results.downloads['restored'] in shown  # what is finished can be downloaded


def test_a_class_name_with_a_slash_gets_a_file(tab, photo, monkeypatch):
    found, files = tab.service.attention(photo, 'sky'), []
    monkeypatch.setattr(type(tab.service), 'attention', lambda self, path, word: found)
    tab._attended(photo, 'road/street', files)
    assert files[0].name == 'street_attention_road_street.png' and files[0].is_file()


def test_results_of_a_replaced_image_are_not_shown(tab, session, photo):
    running = tab.run(session, 'car', lambda *args, **kwargs: None)
    next(running)
    assert tab.results.compare in next(running)
    tab.degrade(session, 'recipe', [0.5, *VALUES[1:]])
    (last,) = list(running)
    assert list(last) == [tab.controls.run]


def test_the_last_event_wins_if_it_ends_first(tab, session, monkeypatch, photo):
    prepared = SingleTab._prepared
    inner = []

    def slow(self, source, mode, values):
        if not inner:
            inner.append(True)
            inner.append(tab.degrade(session, 'recipe', [0.2, *VALUES[1:]]))
        return prepared(self, source, mode, values)

    monkeypatch.setattr(SingleTab, '_prepared', slow)
    assert tab.degrade(session, 'recipe', [0.9, *VALUES[1:]]) == {}
    assert READY in message(tab, inner[1])
    assert session.chosen.given.is_file()
    assert len(list(tab.service.workspace.folder.rglob('*_degraded.png'))) == 1


@pytest.fixture
def overlapping(monkeypatch):
    """Function that runs another one while the next image is being prepared, and returns a list with its result."""
    prepared = SingleTab._prepared

    def during(action):
        found = []

        def slow(self, source, mode, values):
            monkeypatch.setattr(SingleTab, '_prepared', prepared)
            found.append(action())
            return prepared(self, source, mode, values)

        monkeypatch.setattr(SingleTab, '_prepared', slow)
        return found

    return during


@pytest.fixture
def second(photo, tmp_path):
    """Another photo."""
    return shutil.copy(photo, tmp_path / 'second.png')


def test_a_run_that_starts_while_an_image_is_prepared_shows_nothing_after_it(tab, session, second, overlapping):
    def start():
        running = tab.run(session, 'car', lambda *args, **kwargs: None)
        next(running)
        return running

    found = overlapping(start)
    tab.choose(session, second, 'none', VALUES)
    (last,) = list(found[0])
    assert list(last) == [tab.controls.run]


def test_the_attention_to_a_replaced_image_is_not_shown(tab, session, second, monkeypatch, overlapping):
    """The next image begins before the attention, and is finished while the attention is computed."""
    attended = SingleTab._attended
    preparing, computing = threading.Event(), threading.Event()
    found = overlapping(lambda: (preparing.set(), computing.wait(20)))
    choosing = threading.Thread(target=tab.choose, args=(session, second, 'none', VALUES))

    def slow(self, given, word, files):
        computing.set()
        choosing.join()
        return attended(self, given, word, files)

    monkeypatch.setattr(SingleTab, '_attended', slow)
    choosing.start()
    assert preparing.wait(20)
    assert tab.attend(session, 'car') == {}
    assert found and session.chosen.source.name == 'second.png'


def test_a_slider_that_is_moved_during_an_upload_degrades_the_upload(tab, session, second, overlapping):
    found = overlapping(lambda: tab.degrade(session, 'recipe', [0.2, *VALUES[1:]]))
    assert tab.choose(session, second, 'recipe', VALUES) == {}
    assert READY in message(tab, found[0]) and session.chosen.source.name == 'second.png'
    assert [session.chosen.given] == list(tab.service.workspace.folder.rglob('*_degraded.png'))


def test_a_slider_that_is_moved_during_a_faulty_upload_leaves_no_image(tab, session, hostile, overlapping):
    path = next(path for path in hostile if path.name == 'notes.png')
    found = overlapping(lambda: tab.degrade(session, 'recipe', VALUES))
    assert tab.choose(session, str(path), 'recipe', VALUES) == {}
    assert 'not an image' in message(tab, found[0]) and session.chosen is None
    assert MISSING in message(tab, ran(tab, session)[0])


def test_hostile_files_are_named_and_leave_no_image(tab, session, hostile):
    for path, expected in hostile.items():
        for mode in ('none', 'recipe'):
            assert expected in message(tab, tab.choose(session, str(path), mode, VALUES))
            assert session.chosen is None and tab.degrade(session, 'recipe', VALUES) == {}
    assert MISSING in message(tab, ran(tab, session)[0])


def test_degrading_again_removes_the_copy_before(tab, session, photo):
    for seed in range(5):
        tab.degrade(session, 'recipe', [1, seed, *VALUES[2:]])
    assert [session.chosen.given] == list(tab.service.workspace.folder.rglob('*_degraded.png'))
    with tab.service.workspace.used([session.chosen.given]):
        before = session.chosen.given
        tab.choose(session, None, 'none', VALUES)
        assert before.is_file()  # a run reads it


def test_nothing_is_written_to_a_full_workspace(tab, session, photo):
    tab.service.workspace.most = 1
    assert 'stores at most' in message(tab, tab.degrade(session, 'recipe', VALUES))
    assert 'stores at most' in message(tab, ran(tab, session)[-2])
