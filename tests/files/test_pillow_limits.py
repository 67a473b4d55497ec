"""Pillow's global limits return after the last of overlapping blocks."""

import threading

from PIL import Image, PngImagePlugin

from rass_mm.files.integrity import without_pillow_limit


def test_overlapping_blocks_of_threads_leave_the_limits_as_they_were():
    before = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
    inside, leave = threading.Event(), threading.Event()

    def block():
        with without_pillow_limit():
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=block)
    try:
        with without_pillow_limit():
            thread.start()
            assert inside.wait(30)
        assert Image.MAX_IMAGE_PIXELS is None  # the block of the thread still runs
    finally:
        leave.set()
        thread.join()
    assert before == (Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK) and before[0] is not None
