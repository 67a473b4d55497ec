"""Controls of the page: the photo or example, and its degradation."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from rass_mm.app.degrading import AMOUNTS, LARGEST_SEED, NONE, RANGES, RECIPE, Degradation
from rass_mm.app.limits import Limits
from rass_mm.app.toolkit import gradio
from rass_mm.files.images import READABLE

START = 'Choose a photo or an example.'
CHOICES = [('None', NONE), ('Recipe', RECIPE), ('By hand', AMOUNTS)]


def notice(text: str, failed: bool = False, details: Sequence[str] = ()) -> str:
    """Returns the HTML of a message."""
    listed = f'<ul>{"".join(f"<li>{escape(line)}</li>" for line in details)}</ul>' if details else ''
    return f'<div class="notice{" failed" if failed else ""}" role="status">{escape(text)}{listed}</div>'


@dataclass
class Controls:
    """Components of the left column.

    Attributes:
        upload: the uploaded file.
        examples: the gallery of examples, or None.
        mode: the kind of degradation.
        values: severity, seed and amounts, in the order of `Degradation`.
        run: the button that starts the models.
        message: the last message.
    """

    upload: Any
    examples: Any
    mode: Any
    values: list[Any]
    run: Any
    message: Any
    groups: dict[str, Any] = field(default_factory=dict)

    @property
    def degradation(self) -> list[Any]:
        """The components with the settings of a `Degradation`."""
        return [self.mode, *self.values]


def photo_upload(limits: Limits, count: str = 'single', **settings: Any) -> Any:
    """Returns an upload of image files that states its limits."""
    files = 'Photo,' if count == 'single' else f'Up to {limits.max_files} images, each'
    return gradio.File(
        label=f'{files} {limits.described()}', file_count=count, file_types=list(READABLE), height=150, **settings
    )


def add_controls(limits: Limits, examples: Sequence[np.ndarray]) -> Controls:
    """Adds the controls to the current column.

    Args:
        limits: the limits on uploads, which are stated.
        examples: images (H, W, 3) uint8 RGB.
    """
    upload = photo_upload(limits, elem_id='photo')
    gallery = None
    if examples:
        gradio.Markdown('or one of these drawn scenes:', elem_classes='hint')
        gallery = gradio.Gallery(
            list(examples),
            show_label=False,
            columns=4,
            height='auto',
            object_fit='cover',
            allow_preview=False,
            format='png',
            buttons=[],
            elem_id='examples',
            interactive=False,
        )
    mode = gradio.Radio(CHOICES, value=NONE, label='Degradation', elem_id='mode')
    groups, values = _sliders()
    run = gradio.Button('Run', variant='primary', elem_id='run')
    message = gradio.HTML(notice(START), elem_id='message', padding=False)
    return Controls(upload, gallery, mode, values, run, message, groups)


def _sliders() -> tuple[dict[str, Any], list[Any]]:
    with gradio.Group(visible=False) as recipe:
        severity = gradio.Slider(
            0, 1, 1, step=0.05, label='Severity', info='1 is the recipe itself, 0 its mildest form'
        )
    with gradio.Group(visible=False) as amounts:
        sliders = [
            gradio.Slider(allowed.least, allowed.most, allowed.neutral, step=allowed.step, label=allowed.title)
            for allowed in RANGES.values()
        ]
    with gradio.Group(visible=False) as seeds:
        seed = gradio.Number(0, label='Seed', minimum=0, maximum=LARGEST_SEED, precision=0)
    return {RECIPE: recipe, AMOUNTS: amounts, 'seed': seeds}, [severity, seed, *sliders]


def group_updates(controls: Controls, mode: str) -> dict[Any, Any]:
    """Returns updates that show only the settings of a mode."""
    shown = {RECIPE: mode == RECIPE, AMOUNTS: mode == AMOUNTS, 'seed': mode != NONE}
    return {controls.groups[name]: gradio.update(visible=visible) for name, visible in shown.items()}


def degradation_of(mode: str, values: Sequence[float]) -> Degradation:
    """Returns the degradation that the controls show."""
    severity, seed, *amounts = values
    return Degradation(mode, severity, seed, **dict(zip(RANGES, amounts, strict=True)))
