"""Tab for one image: events between the controls and the results."""

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rass_mm.app.controls import START, Controls, add_controls, degradation_of, group_updates, notice
from rass_mm.app.events import LIGHT, MODEL, PRIVATE
from rass_mm.app.messages import message_of
from rass_mm.app.pictures import eight_bits, masks, shares_table, shown
from rass_mm.app.reading import upload_picture
from rass_mm.app.results import HIDDEN, SHARES, TITLES, Results, add_results
from rass_mm.app.service import Service
from rass_mm.app.toolkit import gradio

MISSING = 'Choose a photo or an example first.'
READY = 'Choose how to degrade the image, or leave it as it is. Then select Run.'
Updates = dict[Any, Any]


@dataclass(frozen=True)
class Chosen:
    """Image of a session.

    Attributes:
        source: the upload or the example.
        given: the degraded copy that the models receive, or `source` itself.
    """

    source: Path
    given: Path


@dataclass
class Session:
    """State of a session, which its events change in place.

    Attributes:
        chosen: the image, or None.
        source: the upload or the example that was chosen last, also while it is still being prepared, or None.
        latest: token of the last event that chose or degraded an image. What earlier events find is not shown.
    """

    chosen: Chosen | None = None
    source: Path | None = None
    latest: object = field(default_factory=object)

    def begin(self, source: Path | None) -> object:
        """Starts an event that replaces the image, and returns its token."""
        self.source, self.latest = source, object()
        return self.latest


@dataclass(frozen=True)
class SingleTab:
    """Events of the tab.

    Args:
        service: the functions of the app.
        controls: the components of the left column.
        results: the components of the right column.
        examples: the files of the examples.
    """

    service: Service
    controls: Controls
    results: Results
    examples: Sequence[Path]
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)  # a session is copied, and has none

    def choose(self, session: Session, path: str | None, mode: str, values: Sequence[float]) -> Updates:
        """Checks an image, degrades it and shows it. Returns updates."""
        source = None if path is None else Path(path)
        with self.lock:
            token = session.begin(source)
        found, updates = None, self.results.cleared()
        try:
            if source is None:
                updates |= self._hidden() | self.says(START)
            else:
                found, shows = self._prepared(source, mode, values)
                updates |= shows
        except Exception as error:
            updates |= self._hidden() | self.says(message_of(error), failed=True)
        return self._replaced(session, token, found, updates)

    def degrade(self, session: Session, mode: str, values: Sequence[float]) -> Updates:
        """Degrades the image that was chosen last again, also if it is still being prepared. Returns updates."""
        with self.lock:
            source, before = session.source, session.chosen
            if source is None:
                return {}
            token = session.begin(source)
        try:
            found, shows = self._prepared(source, mode, values)
        except Exception as error:
            failure = self.says(message_of(error), failed=True)
            if before is not None and before.source == source:
                return failure if session.latest is token else {}
            return self._replaced(session, token, None, self.results.cleared() | self._hidden() | failure)
        return self._replaced(session, token, found, self.results.cleared() | shows)

    def _replaced(self, session: Session, token: object, found: Chosen | None, updates: Updates) -> Updates:
        """Replaces the image of a session, unless a later event does. Returns the updates, or none."""
        with self.lock:
            last = session.latest is token
            unused = session.chosen if last else found
            if last:
                session.chosen, session.source = found, found.source if found else None
        if unused is not None and unused.given != unused.source:
            self.service.workspace.discard(unused.given)
        return updates if last else {}

    def _prepared(self, source: Path, mode: str, values: Sequence[float]) -> tuple[Chosen, Updates]:
        given = self.service.degrade(source, degradation_of(mode, values))
        pixels = upload_picture(given, self.service.limits).pixels
        label = f'Input: {source.name}, {pixels.shape[1]}x{pixels.shape[0]}'
        preview = gradio.update(value=shown(eight_bits(pixels)), visible=True, label=label)
        return Chosen(source, given), {self.results.preview: preview} | self.says(READY)

    def run(self, session: Session, word: str | None, progress: Callable) -> Iterator[Updates]:
        """Runs all models on the image of the session, and yields updates after each.

        It ends without results if another image is chosen meanwhile.
        """
        with self.lock:
            chosen, token = session.chosen, session.latest
        if chosen is None:
            yield self.says(MISSING, failed=True)
            return
        files = [chosen.given]
        yield {self.controls.run: gradio.update(interactive=False)}
        with self.service.workspace.used(files):
            for updates in self._results(chosen, word, files, progress):
                if session.latest is not token or session.chosen is not chosen:
                    break
                yield updates
        yield {self.controls.run: gradio.update(interactive=True)}

    def _results(self, chosen: Chosen, word: str | None, files: list[Path], progress: Callable) -> Iterator[Updates]:
        downloads = {}
        try:
            if self.results.compare is not None:
                yield self._restored(chosen.given, files, progress)
                downloads['restored'] = files[1]
            if self.results.maps:
                before = len(files)
                yield self._segmented(chosen.given, files, progress)
                downloads['labels'] = files[before]
            if word and self.results.word is not None:
                yield self._attended(chosen.given, word, files)
            downloads['all'] = self.service.archive(chosen.given, files)
            yield self.results.offered(downloads) | self.says('Finished.')
        except Exception as error:
            yield (self.results.offered(downloads) if downloads else {}) | self.says(message_of(error), failed=True)

    def _restored(self, given: Path, files: list[Path], progress: Callable) -> Updates:
        progress(0, desc='Restoring')
        file, found = self.service.restore(given, lambda done: progress(done, desc='Restoring'))
        files.append(file)
        pair = tuple(shown(eight_bits(pixels)) for pixels in (found.source.pixels, found.pixels))
        return {
            self.results.compare: gradio.update(value=pair),
            self.results.groups[0]: gradio.update(visible=True),
            self.results.preview: gradio.update(visible=HIDDEN),
        }

    def _segmented(self, given: Path, files: list[Path], progress: Callable) -> Updates:
        found, updates = {}, {}
        for name, component in self.results.maps.items():
            progress(0, desc=TITLES[name])
            one = self.service.segment(given, name, lambda done, title=TITLES[name]: progress(done, desc=title))
            found[SHARES[name]] = one
            updates[component] = masks(one)
            ending = '' if name == 'segmentor' else f'_{name}'
            files += [self.service.labels(given, one, f'_labels{ending}.png')]
            files += [self.service.overlay(given, one, f'_overlay{ending}.png')]
        group = self.results.groups[self.results.compare is not None]
        shares = {self.results.shares: shares_table(found), group: gradio.update(visible=True)}
        return updates | shares

    def attend(self, session: Session, word: str | None) -> Updates:
        """Returns updates that show the attention to a class name."""
        with self.lock:
            chosen, token = session.chosen, session.latest
        if chosen is None or not word:
            return {}
        try:
            updates = self._attended(chosen.given, word, [])
        except Exception as error:
            updates = self.says(message_of(error), failed=True)
        return updates if session.latest is token and session.chosen is chosen else {}

    def _attended(self, given: Path, word: str, files: list[Path]) -> Updates:
        """Returns updates that show the attention to a class name, and adds its picture to `files`."""
        found = self.service.attention(given, word)
        name = re.sub(r'[^\w -]', '_', word)[:40]  # a class name can contain a slash
        files.append(self.service.picture(given, found.picture, f'_attention_{name}.png'))
        caption = f'“{word}”: maximum {found.peak:.3g}, {found.peak_to_mean:.2f} times the mean. '
        return {
            self.results.attention: found.picture,
            self.results.caption: caption + 'The colours are relative to it.',
            self.results.groups[-2]: gradio.update(visible=True),
        }

    def _hidden(self) -> Updates:
        return {self.results.preview: gradio.update(value=None, visible=True, label='Input')}

    def says(self, text: str, failed: bool = False) -> Updates:
        """Returns an update of the message."""
        return {self.controls.message: notice(text, failed)}


def add_single_tab(service: Service, examples: Sequence[np.ndarray]) -> None:
    """Adds the tab for one image to the current page.

    Args:
        service: the functions of the app.
        examples: images (H, W, 3) uint8 RGB.
    """
    state = gradio.State(Session())
    files = [service.picture(f'scene_{number}', image, '.png') for number, image in enumerate(examples, 1)]
    with gradio.Row():
        with gradio.Column(scale=1, min_width=320):
            controls = add_controls(service.limits, examples)
        with gradio.Column(scale=2, min_width=320):
            results = add_results(service.models)
    _connect(SingleTab(service, controls, results, files), state)


def _connect(tab: SingleTab, state: Any) -> None:
    """Connects the components with the functions of the tab."""
    controls, results = tab.controls, tab.results
    outputs = [controls.message, controls.run, *results.components()]
    given = {'outputs': outputs, 'show_progress': 'minimal', 'show_progress_on': controls.message, **PRIVATE}
    last = {'trigger_mode': 'always_last'}  # otherwise Gradio drops events while an earlier one waits

    def choose(session: Session, path: str | None, mode: str, *values: float) -> Updates:
        return tab.choose(session, path, mode, values)

    def choose_example(event: gradio.SelectData, session: Session, mode: str, *values: float) -> Updates:
        return tab.choose(session, str(tab.examples[event.index]), mode, values)

    def clear(session: Session, mode: str, *values: float) -> Updates:
        return tab.choose(session, None, mode, values)

    def degrade(session: Session, mode: str, *values: float) -> Updates:
        return tab.degrade(session, mode, values)

    def run(
        session: Session,
        word: str | None = None,
        progress: gradio.Progress = gradio.Progress(),  # noqa: B008 - Gradio replaces the default
    ) -> Iterator[Updates]:
        yield from tab.run(session, word, progress)

    settings = controls.degradation
    controls.upload.upload(choose, [state, controls.upload, *settings], **given, **LIGHT)
    controls.upload.clear(clear, [state, *settings], **given, **LIGHT)
    if controls.examples is not None:
        controls.examples.select(choose_example, [state, *settings], **given, **LIGHT, **last)
    groups = list(controls.groups.values())
    controls.mode.change(lambda mode: group_updates(controls, mode), controls.mode, groups, **PRIVATE, **LIGHT)
    moved = [value.release if hasattr(value, 'release') else value.change for value in controls.values]
    gradio.on([controls.mode.input, *moved], degrade, [state, *settings], **given, **LIGHT, **last)
    words = [results.word] if results.word is not None else []
    controls.run.click(run, [state, *words], **{**given, 'show_progress': 'full'}, **MODEL)
    for word in words:
        word.input(tab.attend, [state, word], **given, **MODEL, **last)
