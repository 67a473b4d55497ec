"""Tests of the cleaner: it removes what Gradio keeps of finished requests, and nothing that users need."""

import os
import threading
import time

import pytest
from gradio.queueing import Event, EventQueue
from gradio.state_holder import StateHolder

from rass_mm.app.cleaning import Cleaner
from rass_mm.app.limits import Limits
from rass_mm.app.toolkit import gradio
from rass_mm.app.workspace import temporary_workspace
from rass_mm.errors import InstallationError


@pytest.fixture
def cleaner(tmp_path):
    with gradio.Blocks() as page, temporary_workspace(tmp_path) as workspace:
        page.image = gradio.State(None)
        StateHolder().set_blocks(page)
        yield Cleaner(page, workspace, Limits(keep=10))


def test_sessions_of_the_service_do_not_replace_those_of_users(cleaner):
    holder = cleaner.page.state_holder
    holder.capacity = 5
    holder['user'][cleaner.page.image._id] = 'photo'
    for number in range(20):
        assert holder[f'call-{number}'].state_data == {}
        cleaner.clean()
    cleaner.clean()
    assert list(holder.session_data) == ['user'] == list(holder.time_last_used)


def test_records_of_answers_are_removed_one_round_after_they_were_received(cleaner):
    pending = cleaner.page._queue.pending_event_ids_session
    pending.update(received=set(), waiting={'event'})
    cleaner.clean()
    assert set(pending) == {'received', 'waiting'}
    cleaner.clean()
    assert set(pending) == {'waiting'}


def waiting_event(page):
    """An event of Gradio that calls a function of the page."""
    gradio.Button().click(lambda: None)
    return Event('session', list(page.fns.values())[-1], None, None)


def test_a_session_that_gets_an_image_during_a_round_is_kept(cleaner):
    holder = cleaner.page.state_holder
    session = holder['user']

    class Lock:
        """Lock for which a round waits while the session gets its image."""

        def __enter__(self):
            session[cleaner.page.image._id] = 'photo'

        def __exit__(self, *error):
            pass

    cleaner.clean()
    holder.lock = Lock()
    cleaner.clean()
    assert 'user' in holder.session_data and 'user' in holder.time_last_used


def test_a_round_that_fails_is_logged_and_followed_by_others(cleaner, monkeypatch, caplog):
    ended, rounds = threading.Event(), []

    def clean():
        rounds.append(True)
        if len(rounds) == 1:
            raise RuntimeError('dictionary changed size during iteration')
        ended.set()

    monkeypatch.setattr(cleaner, 'clean', clean)
    monkeypatch.setattr(cleaner, 'age', 0.1)
    cleaner.run(ended)
    assert len(rounds) == 2 and 'changed size' in caplog.text


def test_a_version_of_gradio_without_the_records_is_named(cleaner):
    del cleaner.page._queue.pending_event_ids_session
    with pytest.raises(InstallationError, match=r'_queue\.pending_event_ids_session.*pip install'):
        Cleaner(cleaner.page, cleaner.workspace, Limits())


def test_uploads_of_requests_in_the_queue_are_kept(cleaner):
    upload = cleaner.workspace.new('upload', '.png')
    upload.write_bytes(b'')
    old = time.time() - 900
    os.utime(upload, (old, old))
    queue = cleaner.page._queue
    waiting = waiting_event(cleaner.page)
    waiting.enqueue_time -= 600
    queue.event_queue_per_concurrency_id['model'] = EventQueue('model', 1)
    queue.event_queue_per_concurrency_id['model'].queue.append(waiting)
    cleaner.clean()
    assert upload.exists()
    queue.event_queue_per_concurrency_id['model'].queue.clear()
    queue.active_jobs = [None, [waiting]]  # it has been taken from the queue, and just starts
    cleaner.clean()
    assert upload.exists()
    queue.active_jobs = [None]
    cleaner.clean()
    assert not upload.exists()
