# RASS that is told which classes are in the image, at test too: an upper bound, not a system.
_base_ = ['./rass.py']
model = dict(prompt=dict(type='TagPrompt', tagger=dict(type='GroundTruthTagger')))
