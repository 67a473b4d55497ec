"""Small diffusion base of the demo: training images, training and linear initialization."""
