# RASS that is told nothing: the empty text as context.
_base_ = ['./rass.py']
model = dict(prompt=dict(type='EmptyPrompt'))
