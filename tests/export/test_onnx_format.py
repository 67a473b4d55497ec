"""Files of quantised networks in ONNX."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from rass_mm.export.formats import Task, format_module

SIDE = 8


@pytest.fixture
def form(monkeypatch):
    """The format, with a quantisation that changes nothing and a converter that stores weights in a data file."""
    for library in ('onnx', 'onnx_ir', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(library)
    form = format_module('onnx')
    unchanged = SimpleNamespace(quantised=lambda model, calibration, name: model)
    monkeypatch.setattr(form, 'import_optional', lambda module, purpose: unchanged)
    whole = torch.onnx.ONNXProgram.save
    monkeypatch.setattr(torch.onnx.ONNXProgram, 'save', lambda self, file: whole(self, file, external_data=True))
    return form


@pytest.mark.parametrize('large', [False, True])
def test_int8_keeps_no_float32_weights(form, tmp_path, monkeypatch, large):
    if large:
        monkeypatch.setattr(form, 'LARGEST', 1000)
    network, images = nn.Conv2d(3, 40, 3, padding=1).eval().requires_grad_(False), torch.rand(1, 3, SIDE, SIDE)
    expected = network(images)
    form.write(Task(network, images, 'int8'), tmp_path)
    names = {'model.onnx', 'model.onnx.data'} if large else {'model.onnx'}
    assert {file.name for file in tmp_path.iterdir()} == names == form.opened(tmp_path)
    weights = 4 * network.weight.numel()
    sizes = {file.name: file.stat().st_size for file in tmp_path.iterdir()}
    assert weights <= sizes['model.onnx.data' if large else 'model.onnx'] < 1.5 * weights
    assert torch.allclose(torch.from_numpy(form.load(tmp_path, 'int8').run(images.numpy())), expected, atol=1e-5)
