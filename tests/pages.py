"""The project's pages, taken apart: links, anchors, fenced blocks and the commands in them."""

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from commands import ROOT
from markdown_it import MarkdownIt
from markdown_it.token import Token

PLACES = ('*.md', 'docs/**/*.md', 'configs/*/README.md', 'experiments/README.md')
PAGES = sorted({file for place in PLACES for file in ROOT.glob(place) if '_build' not in file.parts})
ENVIRONMENT = '$(make -s env)/bin/'


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text and the line it starts at."""

    language: str
    text: str
    line: int


def name(page: Path) -> str:
    """The path of a page in the project."""
    return page.relative_to(ROOT).as_posix()


@cache
def tokens(page: Path) -> list[Token]:
    """The page as markdown-it reads it."""
    return MarkdownIt('commonmark').enable('table').parse(page.read_text(encoding='utf-8'))


def blocks(page: Path, language: str) -> list[Block]:
    """The fenced blocks of a language."""
    fences = [token for token in tokens(page) if token.type == 'fence' and token.info.strip() == language]
    return [Block(language, token.content, token.map[0] + 1) for token in fences]


def inlines(page: Path, kind: str) -> Iterator[Token]:
    """The inline tokens of a kind, e.g. 'link_open' or 'code_inline'."""
    for token in tokens(page):
        yield from (child for child in token.children or () if child.type == kind)


def links(page: Path) -> list[str]:
    """Targets of all links and pictures."""
    targets = [token.attrs['href'] for token in inlines(page, 'link_open')]
    return targets + [token.attrs['src'] for token in inlines(page, 'image')]


def headings(page: Path, level: int | None = None) -> list[str]:
    """Texts of the headings, of one level or of all."""
    found = tokens(page)
    starts = [i for i, token in enumerate(found) if token.type == 'heading_open']
    return [found[i + 1].content for i in starts if level is None or found[i].tag == f'h{level}']


def anchors(page: Path) -> set[str]:
    """Anchors of the headings, as git hosts and the site make them."""
    plain = (re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', text.replace('`', '')) for text in headings(page))
    return {re.sub(r'[^\w\- ]', '', text.lower()).replace(' ', '-') for text in plain}


def command_lines(text: str) -> list[list[str]]:
    """The commands of a shell block as words, without comments, assignments and the environment's folder."""
    joined = re.sub(r'\\\n\s*', ' ', text).replace(ENVIRONMENT, '')
    found = []
    for line in joined.splitlines():
        words: list[str] = []
        for word in [*shlex.split(line, comments=True), '&&']:
            if word == '&&':
                found.append(words)
                words = []
            elif words or not re.match(r'\w+=', word):  # VARIABLE=value before a command
                words.append(word)
    return [words for words in found if words]


def named_files(page: Path) -> dict[str, str]:
    """Files that a page shows: Python blocks whose first line is a comment with a path."""
    found = ((re.match(r'# (\S+\.py)\n', block.text), block.text) for block in blocks(page, 'python'))
    return {match[1]: text for match, text in found if match}


def expanded(text: str) -> list[str]:
    """Every name that a shell makes of braces: 'a_{b,c}' is 'a_b' and 'a_c'."""
    found = re.search(r'{([^{}]*)}', text)
    if not found:
        return [text]
    return [
        name for part in found[1].split(',') for name in expanded(text[: found.start()] + part + text[found.end() :])
    ]


def imported_names(text: str) -> list[tuple[str, str]]:
    """(module, name) of every `from module import name` in a Python block."""
    nodes = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom))
    return [(node.module, alias.name) for node in nodes for alias in node.names]
