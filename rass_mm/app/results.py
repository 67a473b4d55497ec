"""Results on the page: before and after, segmentations, shares of classes, attention, downloads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rass_mm.app.models import Models
from rass_mm.app.pictures import colors
from rass_mm.app.toolkit import gradio

HIDDEN = 'hidden'
"""Visibility of results that are in the page but not shown. Gradio can lose updates of components that are not."""
SHARES = {'segmentor': 'Share', 'baseline': 'Share by the baseline'}
"""Headings of the table of shares."""
TITLES = {'segmentor': 'Segmentation', 'baseline': 'Segmentation by the baseline'}


@dataclass
class Results:
    """Components of the right column. Those of absent models are missing.

    Attributes:
        preview: the input.
        compare: the input and the restored image, with a slider between them.
        maps: name of a segmentor -> its annotated image.
        shares: the table of shares.
        word: the choice of a class name.
        attention: the map of this name.
        caption: a line about the map.
        downloads: name of a result -> its button.
    """

    preview: Any
    compare: Any = None
    maps: dict[str, Any] = field(default_factory=dict)
    shares: Any = None
    word: Any = None
    attention: Any = None
    caption: Any = None
    downloads: dict[str, Any] = field(default_factory=dict)
    groups: list[Any] = field(default_factory=list)

    def components(self) -> list[Any]:
        """All components."""
        single = [self.preview, self.compare, self.shares, self.word, self.attention, self.caption]
        found = [*single, *self.maps.values(), *self.downloads.values(), *self.groups]
        return [component for component in found if component is not None]

    def offered(self, files: Mapping[str, Path]) -> dict[Any, Any]:
        """Returns updates that show the downloads of some results."""
        return {
            self.groups[-1]: gradio.update(visible=True),
            **{self.downloads[name]: gradio.update(value=str(file)) for name, file in files.items()},
        }

    def cleared(self) -> dict[Any, Any]:
        """Returns updates that hide all results of an earlier image."""
        updates = {group: gradio.update(visible=HIDDEN) for group in self.groups}
        shown = [self.compare, self.shares, self.attention, *self.maps.values()]
        updates |= {component: gradio.update(value=None) for component in shown if component is not None}
        return updates


def add_results(models: Models) -> Results:
    """Adds the results to the current column."""
    preview = gradio.Image(
        label='Input', interactive=False, format='png', buttons=['fullscreen'], height=460, elem_id='preview'
    )
    results = Results(preview)
    if models.restorer:
        with gradio.Column(visible=HIDDEN) as group:
            results.compare = gradio.ImageSlider(
                label='Input (left) and restored image (right)',
                format='png',
                interactive=False,
                buttons=['fullscreen'],
                max_height=560,
                elem_id='compare',
            )
        results.groups.append(group)
    if models.segmentor:
        _add_segmentation(models, results)
    if models.words:
        _add_attention(models, results)
    with gradio.Row(visible=HIDDEN) as row:
        for name, title in _downloads(models).items():
            results.downloads[name] = gradio.DownloadButton(title, size='md', elem_id=f'download-{name}', min_width=160)
    results.groups.append(row)
    return results


def _downloads(models: Models) -> dict[str, str]:
    found = {'restored': 'Restored image (PNG)'} if models.restorer else {}
    found |= {'labels': 'Label map (PNG)'} if models.segmentor else {}
    return {**found, 'all': 'All results (ZIP)'}


def _add_segmentation(models: Models, results: Results) -> None:
    with gradio.Column(visible=HIDDEN) as group:
        with gradio.Row():
            for name, model in models.segmentors.items():
                results.maps[name] = gradio.AnnotatedImage(
                    label=TITLES[name],
                    color_map=colors(dict(zip(model.classes, model.palette, strict=True))),
                    format='png',
                    buttons=['fullscreen'],
                    elem_id=name,
                    min_width=280,
                )
        results.shares = gradio.HTML(elem_id='shares', padding=False)
    results.groups.append(group)


def _add_attention(models: Models, results: Results) -> None:
    with gradio.Column(visible=HIDDEN) as group, gradio.Row():
        with gradio.Column(scale=1, min_width=220):
            results.word = gradio.Dropdown(
                list(models.words), value=models.words[0], label='Attention to the word', elem_id='word'
            )
            results.caption = gradio.Markdown(elem_classes='hint', elem_id='caption')
        with gradio.Column(scale=2, min_width=280):
            results.attention = gradio.Image(
                label='Attention', interactive=False, format='png', buttons=['fullscreen'], elem_id='attention'
            )
    results.groups.append(group)
