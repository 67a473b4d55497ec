"""Endpoints of the HTTP service. They have no state: each takes files and returns files and values."""

from collections.abc import Callable, Sequence
from typing import Any

from rass_mm.app.degrading import MODES, RANGES, Degradation
from rass_mm.app.events import LIGHT, MODEL, reported
from rass_mm.app.folder import process_folder
from rass_mm.app.service import Service
from rass_mm.app.toolkit import gradio
from rass_mm.errors import DataError


def add_endpoints(service: Service) -> None:
    """Adds the endpoints to the current page of Gradio, on components that are not shown."""
    with gradio.Column(visible=False):
        _add(_about(service), [], [gradio.JSON(label='about')], 'about', LIGHT)
        values = [gradio.Textbox('recipe', label='mode'), gradio.Number(1, label='severity'), gradio.Number(0)]
        values += [gradio.Number(allowed.neutral, label=name) for name, allowed in RANGES.items()]
        degraded = [gradio.File(label='degraded')]
        _add(_degrade(service), [gradio.File(label='image'), *values], degraded, 'degrade', LIGHT)
        if service.models.restorer:
            _add(_restore(service), [gradio.File(label='image')], [gradio.File(label='restored')], 'restore', MODEL)
        if service.models.words:
            found = [gradio.File(label='picture'), gradio.JSON(label='attention')]
            inputs = [gradio.File(label='image'), gradio.Textbox(label='word')]
            _add(_attention(service), inputs, found, 'attention', MODEL)
        if service.models.segmentor:
            found = [gradio.File(label='labels'), gradio.File(label='overlay'), gradio.JSON(label='shares')]
            inputs = [gradio.File(label='image'), gradio.Textbox('segmentor', label='model')]
            _add(_segment(service), inputs, found, 'segment', MODEL)
        inputs = [gradio.File(label='images', file_count='multiple'), gradio.JSON(label='outputs')]
        found = [gradio.File(label='zip'), gradio.JSON(label='report')]
        _add(_folder(service), inputs, found, 'folder', MODEL)


def _add(function: Callable, inputs: Sequence[Any], outputs: Sequence[Any], name: str, settings: Any) -> None:
    gradio.Button(name).click(reported(function), list(inputs), list(outputs), api_name=name, **settings)


def _about(service: Service) -> Callable:
    def about() -> dict[str, Any]:
        """Limits on uploads, class names, and the models of this app."""
        return service.about()

    return about


def _degrade(service: Service) -> Callable:
    def degrade(
        image: str,
        mode: str = 'recipe',
        severity: float = 1,
        seed: int = 0,
        blur: float = RANGES['blur'].neutral,
        downscale: float = RANGES['downscale'].neutral,
        gaussian: float = RANGES['gaussian'].neutral,
        poisson: float = RANGES['poisson'].neutral,
        jpeg: float = RANGES['jpeg'].neutral,
    ) -> str:
        amounts = {'blur': blur, 'downscale': downscale, 'gaussian': gaussian, 'poisson': poisson, 'jpeg': jpeg}
        return str(service.degrade(_given(image), Degradation(mode, severity, seed, **amounts)))

    degrade.__doc__ = f"""Degrades an image. Mode: {', '.join(MODES)}."""
    return degrade


def _restore(service: Service) -> Callable:
    def restore(image: str) -> str:
        """Restores an image and returns a PNG file."""
        return str(service.restore(_given(image))[0])

    return restore


def _segment(service: Service) -> Callable:
    def segment(image: str, model: str = 'segmentor') -> tuple[str, str, dict[str, float]]:
        """Segments an image. Returns the label map and the overlay as PNG files, and the share of each class."""
        found = service.segment(_given(image), model)
        return str(service.labels(image, found)), str(service.overlay(image, found)), found.shares

    return segment


def _attention(service: Service) -> Callable:
    def attention(image: str, word: str) -> tuple[str, dict[str, float]]:
        """Attention of the restorer's UNet to a class name, as a PNG file, with its maximum and peak-to-mean ratio."""
        found = service.attention(_given(image), word)
        values = {'maximum': found.peak, 'peak_to_mean': found.peak_to_mean}
        return str(service.picture(image, found.picture, '_attention.png')), values

    return attention


def _folder(service: Service) -> Callable:
    def folder(
        images: list[str],
        outputs: list[str],
        progress: gradio.Progress = gradio.Progress(),  # noqa: B008 - Gradio replaces the default
    ) -> tuple[str, dict[str, Any]]:
        """Processes images and returns a zip file. Outputs: restored, labels, overlays."""
        chosen = outputs if isinstance(outputs, list) else []
        found = process_folder(service, images or [], chosen, lambda done, total, name: progress((done, total)))
        return str(found.archive), {'finished': found.finished, 'failed': found.failed}

    return folder


def _given(image: str | None) -> str:
    """Returns the path of an uploaded image, or raises a DataError if there is none."""
    if not image:
        raise DataError('The image is missing. Upload one.')
    return image
