"""Web page and HTTP service that degrade, restore and segment uploaded images.

The modules `degrading`, `limits`, `models`, `pictures`, `reading`, `service` and `workspace` do not depend on Gradio.
"""
