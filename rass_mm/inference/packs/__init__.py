"""Writing of model packs: config as data, weights, manifest and model card."""
