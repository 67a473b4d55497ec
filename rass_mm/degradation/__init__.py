"""Two-stage recipe for low-quality images: randomly drawn parameters, mmseg transforms, and a data set builder.

Only `transforms` depends on mmseg. This file does not import it.
"""
