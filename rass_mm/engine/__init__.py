"""Extensions of mmengine's runner: checkpoints, records, seeding, training loop and parameter groups.

`rass_mm.register` imports the modules that register with mmengine. This file imports none, because restoring photos
needs `ready` only.
"""
