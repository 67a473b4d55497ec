"""Model packs: folders with all that is needed to use a trained model, checked before anything is read."""
