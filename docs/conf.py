"""Sphinx configuration: `make docs` builds the site from docs/ and from the pages beside what they describe."""

import os
import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ['NO_ALBUMENTATIONS_UPDATE'] = '1'  # mmagic's albumentations would look for a newer one
EMBEDDED = {
    'models/configs': 'configs/README.md',
    'models/rass': 'configs/rass/README.md',
    'models/scr': 'configs/scr/README.md',
    'models/diffusion': 'configs/diffusion/README.md',
    'models/baselines': 'configs/baselines/README.md',
    'experiments': 'experiments/README.md',
    'contributing': 'CONTRIBUTING.md',
    'changelog': 'CHANGELOG.md',
}
"""Page of the site -> the file whose text it shows; in docs/ such a page only links to that file."""
LINK = re.compile(r'(\]\()([^)\s]+)(\))')
VERSION = re.search(r"__version__ = '(.+)'", (ROOT / 'rass_mm' / 'version.py').read_text())[1]

project = 'rass_mm'
release = VERSION
extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx_copybutton']
exclude_patterns = ['_build']
default_role = 'literal'
smartquotes = False
html_theme = 'furo'
html_title = f'{project} {VERSION}'
html_show_copyright = False
html_show_sphinx = False
myst_heading_anchors = 4
autodoc_typehints = 'signature'
autodoc_member_order = 'bysource'
autodoc_preserve_defaults = True
autodoc_class_signature = 'mixed'
napoleon_numpy_docstring = False


def setup(app: Sphinx) -> None:
    """Registers the reading of the embedded pages."""
    app.connect('source-read', read_page)


def read_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Puts the text of an embedded file into its page, and points links at pages of the site."""
    origin = EMBEDDED.get(docname, f'docs/{docname}.md')
    if docname in EMBEDDED:
        app.env.note_dependency(str(ROOT / origin))
        source[0] = (ROOT / origin).read_text(encoding='utf-8')
    source[0] = LINK.sub(lambda found: found[1] + site_link(found[2], origin, docname) + found[3], source[0])


def site_link(target: str, origin: str, docname: str) -> str:
    """A link target of the file `origin` as it is written on the page `docname`.

    Targets outside the site stay links to files; all others stay as they are.
    """
    path, mark, anchor = target.partition('#')
    file = (ROOT / origin).parent / path
    if not path or '://' in path or not file.exists():
        return target
    if file.is_dir():
        file = file / 'README.md'
    name = file.resolve().relative_to(ROOT).as_posix()
    pages = {shown: f'docs/{page}.md' for page, shown in EMBEDDED.items()} | {'README.md': 'docs/index.md'}
    folder = (ROOT / 'docs' / docname).parent
    return os.path.relpath(ROOT / pages.get(name, name), folder) + mark + anchor
