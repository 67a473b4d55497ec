"""Export of trained models to OpenVINO, ONNX and `torch.export`, and exported models as networks for prediction.

The exported network maps one window to the logits of a segmentor, or to the restored window. Tiling, blending and
colours stay outside of it. An exported model is a folder with the files of the network and `metadata.json`.
"""
