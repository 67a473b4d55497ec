"""Demo of the method on generated scenes, with a small base."""
