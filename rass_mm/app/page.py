"""The page: one tab for a single image, one for a folder, and the endpoints of the HTTP service."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rass_mm.app.controls import notice, photo_upload
from rass_mm.app.endpoints import add_endpoints
from rass_mm.app.events import MODEL, PRIVATE
from rass_mm.app.folder import possible_outputs, process_folder
from rass_mm.app.messages import message_of
from rass_mm.app.service import Service
from rass_mm.app.single import add_single_tab
from rass_mm.app.toolkit import gradio

TITLES = {'restored': 'Restored images', 'labels': 'Label maps', 'overlays': 'Overlays with legends'}
FOLDER = 'Add the images of a folder. The ZIP file has the folders of rass-mm restore and rass-mm segment.'


def build_page(service: Service, examples: Sequence[np.ndarray]) -> gradio.Blocks:
    """Builds the page.

    Args:
        service: the functions of the app.
        examples: images (H, W, 3) uint8 RGB.
    """
    with gradio.Blocks(title='rass-mm', analytics_enabled=False, fill_width=True) as page:
        add_endpoints(service)
        gradio.Markdown(f'# rass-mm\n{_described(service)}', elem_id='title')
        with gradio.Tab('One image'):
            add_single_tab(service, examples)
        with gradio.Tab('Folder', elem_id='folder-tab'):
            _add_folder_tab(service)
    page.queue(api_open=False, max_size=200)
    return page


def _described(service: Service) -> str:
    models = service.models
    parts = ['restores'] * (models.restorer is not None) + ['segments'] * (models.segmentor is not None)
    kept = f'Images are stored where the app runs and are removed after {service.limits.keep:g} minutes.'
    device = models.segmentor.device if models.segmentor else models.restorer.network.device
    place = 'the CPU' if device.type == 'cpu' else str(device)
    return (
        f'This page {" and ".join(parts)} low-quality images on {place}. {kept} [HTTP service](gradio_api/openapi.json)'
    )


def _add_folder_tab(service: Service) -> None:
    outputs = [(TITLES[name], name) for name in possible_outputs(service)]
    with gradio.Row():
        with gradio.Column(scale=1, min_width=320):
            files = photo_upload(service.limits, 'multiple', elem_id='files')
            folder = gradio.UploadButton('Add a folder', file_count='directory', size='md', elem_id='folder')
            chosen = gradio.CheckboxGroup(outputs, value=[name for _, name in outputs], label='Outputs')
            run = gradio.Button('Run', variant='primary', elem_id='run-folder')
        with gradio.Column(scale=2, min_width=320):
            message = gradio.HTML(notice(FOLDER), elem_id='folder-message', padding=False)
            archive = gradio.DownloadButton('All results (ZIP)', visible=False, elem_id='download-folder')

    def process(
        paths: list[str] | None,
        kinds: list[str],
        progress: gradio.Progress = gradio.Progress(),  # noqa: B008 - Gradio replaces the default
    ) -> dict[Any, Any]:
        try:
            found = process_folder(
                service, paths or [], kinds, lambda done, total, name: progress((done, total), desc=name, unit='images')
            )
        except Exception as error:
            return {message: notice(message_of(error), failed=True), archive: gradio.update(visible=False)}
        failed = [f'{name}: {reason}' for name, reason in found.failed.items()]
        text = f'{len(found.finished)} of {len(paths)} images are finished.' + ' These are not:' * bool(failed)
        shown = {archive: gradio.update(value=str(found.archive), visible=bool(found.finished))}
        return {message: notice(text, bool(failed), failed), **shown}

    folder.upload(lambda paths: paths, folder, files, show_progress='hidden', **PRIVATE)
    run.click(process, [files, chosen], [message, archive], show_progress_on=message, **PRIVATE, **MODEL)
