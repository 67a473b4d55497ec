"""Gradio (with the libraries on which it builds), an optional library, without its requests to other hosts."""

import os

os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'  # read when gradio is imported
os.environ['HF_HUB_DISABLE_TELEMETRY'] = '1'

try:
    import gradio
    from gradio.route_utils import FnIndexInferError
    from python_multipart.exceptions import MultipartParseError
    from python_multipart.multipart import MultipartParser, parse_options_header
    from starlette.middleware import Middleware
except ImportError as error:
    from rass_mm.errors import InstallationError

    raise InstallationError(
        f"The app needs Gradio, which cannot be imported ({error}). To fix: pip install 'rass_mm[app]'"
    ) from error

REQUEST_ERRORS = (gradio.Error, FnIndexInferError)
"""Gradio's own errors for requests that it cannot answer."""

__all__ = ['REQUEST_ERRORS', 'Middleware', 'MultipartParseError', 'MultipartParser', 'gradio', 'parse_options_header']
