"""Framework-independent image and segmentation metrics."""
