"""Models to export, libraries of the formats, and the side of a window."""

LIBRARIES = {'openvino': ['openvino'], 'onnx': ['onnx', 'onnx_ir', 'onnxscript', 'onnxruntime'], 'pt2': []}
CONFIGS = {
    'plain': 'baselines/resnet_scenes_tiny.py',
    'fcn': 'diffusion/fcn_diffusion-tiny_1xb8-170_scenes-96x96.py',
    'upernet': 'rass/rass_scenes_tiny.py',
    'mask2former': 'rass/rass_scenes_tiny_mask2former.py',
}
WINDOW = 96
