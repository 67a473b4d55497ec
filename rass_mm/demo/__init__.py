"""Demo of the method on drawn scenes, with a small diffusion base."""
