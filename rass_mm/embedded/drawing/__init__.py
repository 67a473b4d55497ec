"""How the embedded scenes are drawn: a canvas with labels, backdrop, ground, buildings and objects."""
