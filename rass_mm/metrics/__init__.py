"""Image and segmentation metrics that do not depend on mmengine."""
