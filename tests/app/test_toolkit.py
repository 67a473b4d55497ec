"""Without Gradio, the app says how to install it."""

import subprocess
import sys

CODE = """
import sys
sys.modules['gradio'] = sys.modules['starlette'] = sys.modules['starlette.middleware'] = None
from rass_mm.errors import InstallationError
try:
    import rass_mm.app.server
except InstallationError as error:
    print(error)
"""


def test_missing_gradio_is_named_with_the_fix():
    done = subprocess.run([sys.executable, '-c', CODE], capture_output=True, text=True)
    assert "pip install 'rass_mm[app]'" in done.stdout, done.stderr
