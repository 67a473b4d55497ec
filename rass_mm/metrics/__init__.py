"""Image and segmentation metrics; they depend on no framework."""
