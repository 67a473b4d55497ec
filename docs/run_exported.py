"""Runs an exported model with NumPy, Pillow and its runtime alone: python run_exported.py EXPORTED IMAGE OUT.png"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

Run = Callable[[np.ndarray], np.ndarray]


def load(folder: Path, name: str) -> Run:
    """Loads the network, which maps (1, 3, h, w) to (1, C, h, w)."""
    if name == 'openvino':
        import openvino  # only the runtime of this format is needed

        network = openvino.Core().compile_model(folder / 'model.xml', 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
        return lambda images: network(images)[0]
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / 'model.onnx', providers=['CPUExecutionProvider'])
    return lambda images: session.run(None, {'images': images})[0]


def predict(photo: np.ndarray, run: Run, about: dict) -> np.ndarray:
    """Maps (H, W, 3) uint8 RGB to the network's output (C, H, W), averaged where windows overlap."""
    how, window, step = about['preprocessing'], about['input'][2:], about['stride']
    pixels = photo if how['channels'] == 'RGB' else photo[..., ::-1]
    pixels = ((pixels - np.float32(how['mean'])) / np.float32(how['std'])).transpose(2, 0, 1)
    (height, width), multiple = pixels.shape[1:], how['multiple']
    size = [max(-(-photo.shape[i] // multiple) * multiple, window[i]) for i in (0, 1)]
    padded = np.pad(pixels, [(0, 0), (0, size[0] - height), (0, size[1] - width)], 'reflect')
    if how['padding'] is not None:
        padded[:, height:] = padded[:, :, width:] = np.float32(how['padding'])[:, None, None]
    starts = [[min(at, size[i] - window[i]) for at in range(0, size[i] - window[i] + step[i], step[i])] for i in (0, 1)]
    total, count = np.zeros((about['output'][1], *size), np.float32), np.zeros(size, np.float32)
    for top in starts[0]:
        for left in starts[1]:
            rows, columns = slice(top, top + window[0]), slice(left, left + window[1])
            total[:, rows, columns] += run(np.ascontiguousarray(padded[None, :, rows, columns]))[0]
            count[rows, columns] += 1
    return (total / count)[:, :height, :width]


folder = Path(sys.argv[1])
about = json.loads((folder / 'metadata.json').read_text())
if any('Resize' in step['type'] for step in about.get('classes', {'pipeline': []})['pipeline']):
    sys.stderr.write('Resize the image first: the test pipeline of this model does, but this script does not.\n')
photo = np.asarray(ImageOps.exif_transpose(Image.open(sys.argv[2])).convert('RGB'))
result = predict(photo, load(folder, about['format']), about)
if about['kind'] == 'restorer':
    image = Image.fromarray(np.rint((result.transpose(1, 2, 0) + 1) * 127.5).clip(0, 255).astype(np.uint8))
else:
    threshold = about['classes']['threshold']
    labels = result.argmax(0) if threshold is None else 1 / (1 + np.exp(-result[0])) > threshold
    image = Image.fromarray(labels.astype(np.uint8))
    image.putpalette([level for color in about['classes']['palette'] for level in color])
image.save(sys.argv[3])
