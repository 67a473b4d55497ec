"""The demo: labelled scenes, a small base and one run of the method."""
