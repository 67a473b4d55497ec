"""Draws docs/floors.svg, the floors of the code, from the import-linter contract named "floors" in pyproject.toml.

python docs/draw_floors.py
"""

import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / 'docs' / 'floors.svg'
CONTRACT = 'floors'
WIDTH, HEIGHT, GAP, MARGIN, SHAFT = 900, 40, 12, 24, 40
STYLE = """
  text { font-family: system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif; font-size: 14px; fill: #1f2933; }
  .note { font-size: 13px; fill: #52606d; }
  .sheet { fill: #fbfcfd; stroke: #cbd2d9; }
  .box { fill: #dbe9f6; stroke: #4a7fb0; }
  .shared { fill: #e6efdc; stroke: #7a9a55; }
  .shaft { stroke: #52606d; stroke-width: 1.5; fill: none; }
"""
Floor = list[tuple[str, bool]]
"""Names of one floor, each with whether it must not import its neighbours."""


def main() -> int:
    """Writes the picture; returns 0."""
    PICTURE.write_text(drawn(read_floors(ROOT / 'pyproject.toml')), encoding='utf-8')
    sys.stdout.write(f'{PICTURE.relative_to(ROOT)}\n')
    return 0


def read_floors(file: Path) -> list[Floor]:
    """The floors of the contract, the highest first.

    Raises:
        ValueError: the file has no layers contract of that name.
    """
    settings = tomllib.loads(file.read_text(encoding='utf-8')).get('tool', {}).get('importlinter', {})
    for contract in settings.get('contracts', []):
        if contract.get('type') == 'layers' and contract.get('name') == CONTRACT:
            return [parse_floor(layer) for layer in contract['layers']]
    raise ValueError(f'{file} has no import-linter contract of type "layers" named "{CONTRACT}".')


def parse_floor(layer: str) -> Floor:
    """A layer as import-linter writes it: 'a | b' do not import each other, 'a : b' may, '(a)' may be absent."""
    independent = ':' not in layer
    parts = layer.replace('|', ':').split(':')
    return [(part.strip().strip('()').strip(), independent) for part in parts]


def drawn(floors: Sequence[Floor]) -> str:
    """The picture as SVG: one row of boxes per floor, and an arrow in the direction of imports."""
    top = MARGIN + 18
    bottom = top + len(floors) * (HEIGHT + GAP) - GAP
    size = (WIDTH, bottom + MARGIN)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}" width="{size[0]}" '
        f'height="{size[1]}" role="img" aria-label="The floors of the code: imports point downwards">',
        f'<style>{STYLE}</style>',
        f'<rect class="sheet" x="0.5" y="0.5" width="{size[0] - 1}" height="{size[1] - 1}" rx="8"/>',
        f'<text class="note" x="{MARGIN + SHAFT}" y="{MARGIN + 4}">{note(floors)}</text>',
        f'<path class="shaft" d="M{MARGIN + 12} {top} V{bottom} m-6 -10 l6 10 l6 -10"/>',
    ]
    for index, floor in enumerate(floors):
        lines += row(floor, top + index * (HEIGHT + GAP))
    return '\n'.join([*lines, '</svg>', ''])


def note(floors: Sequence[Floor]) -> str:
    """How the picture is read."""
    text = 'Imports point downwards only; boxes of one floor do not import each other'
    return f'{text}, except the green ones.' if any(not apart for floor in floors for _, apart in floor) else f'{text}.'


def row(floor: Floor, y: int) -> list[str]:
    """Boxes of one floor, of equal width, at height `y`."""
    left = MARGIN + SHAFT
    step = (WIDTH - left - MARGIN + GAP) / len(floor)
    lines = []
    for index, (name, independent) in enumerate(floor):
        x, width = left + index * step, step - GAP
        kind = 'box' if independent else 'shared'
        lines += [
            f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="{HEIGHT}" rx="5"/>',
            f'<text x="{x + width / 2:.1f}" y="{y + 25}" text-anchor="middle">{escape(label(name))}</text>',
        ]
    return lines


def label(name: str) -> str:
    """The name of a module as it is written in its box."""
    return name.removeprefix('rass_mm.')


if __name__ == '__main__':
    sys.exit(main())
