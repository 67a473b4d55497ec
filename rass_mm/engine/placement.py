"""Device on which mmengine places a model."""

import platform

import torch
from mmengine.device import get_device, is_cuda_available, is_musa_available, is_npu_available


def has_accelerator() -> bool:
    """Returns whether this machine has a device on which mmengine supports mixed precision: CUDA, NPU or MUSA."""
    return is_cuda_available() or is_npu_available() or is_musa_available()


def device_name() -> str:
    """Returns the device on which mmengine places a model, with the name of the GPU or the processor architecture."""
    device = get_device()
    return f'{device} ({torch.cuda.get_device_name() if device == "cuda" else platform.machine()})'
