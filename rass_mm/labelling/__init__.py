"""Label maps of whole images from the logits of windows and rows. It needs no library of OpenMMLab."""
