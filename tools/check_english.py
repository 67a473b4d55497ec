"""Finds wording that this project does not use and prints a replacement: python tools/check_english.py [FILE ...].

It reads docstrings, comments and string literals of Python files and the text of Markdown files. `make lint` runs it on
all files under version control. CONTRIBUTING.md (5. Style) describes the English of this project.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

BANNED = (
    (r'\bgo(es|ing)? on where\b|\bgoes on\b|\bwent on\b|\bgo on\b', 'resumes, continues'),
    (r'\bno business\b', 'say what is excluded, and from what'),
    (r'\blets? go of\b|\b(is|are) let go\b', 'drops'),
    (r'\bwhole numbers?\b', 'integer, "is not a positive integer"'),
    (r'\bA context[;:,]', 'Context manager.'),
    (r'\bbehind it\b', 'after it exits'),
    (r'\b(is|are) no (image|checkpoint|size|number|integer|file|folder|restorer|mapping|variant)s?\b', 'is not a ...'),
    (r'\bamiss\b', 'wrong'),
    (r'\banew\b', 'again'),
    (r'\bTo mend\b|\b[Mm]end(s|ed|ing)?\b', 'fix'),
    (r'\bsee to\b', 'check'),
    (r'\bthe most that\b', 'the maximum'),
    (r'\bhas (it|them) all\b', 'holds all'),
    (r'\bfor ever\b', 'forever, without limit'),
    (r'\bat hand\b', 'available'),
    (r'\bwhat for\b', 'why'),
    (r'\b(can)?not be told from\b', 'cannot be distinguished from'),
    (r'\bof old\b|\bby and by\b|\blest\b|\bwhereby\b|\bthereof\b|\btherein\b', 'plain words'),
    (r'\bknows neither\b', 'does not depend on'),
    (r'\bweigh(s|ed)? (all )?alike\b', 'equal weights'),
)
FIRST_LINE = re.compile(r'What\b')
FOUND = tuple[int, str, str]


def wrong_words(text: str, line: int) -> Iterator[FOUND]:
    """(line, words, replacement) of each banned wording in a text that begins at a line."""
    for number, row in enumerate(text.splitlines(), line):
        for pattern, better in BANNED:
            for match in re.finditer(pattern, row):
                yield number, match[0], better


def of_python(source: str) -> Iterator[FOUND]:
    """Findings in docstrings, string literals and comments."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text and FIRST_LINE.match(text):
                yield node.body[0].lineno, 'What ...', 'a first line that says what the thing is or does'
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from wrong_words(node.value, node.lineno)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield from wrong_words(token.string, token.start[0])


def findings(path: Path) -> list[FOUND]:
    """All findings of a file, in order."""
    text = path.read_text(encoding='utf-8')
    return sorted(set(of_python(text) if path.suffix == '.py' else wrong_words(text, 1)))


def main(arguments: list[str]) -> int:
    """Prints the findings; returns 1 where there are any."""
    names = arguments or subprocess.check_output(['git', 'ls-files', '*.py', '*.md'], text=True).split()
    count = 0
    for path in map(Path, names):
        if path.resolve() == Path(__file__).resolve():
            continue
        for line, words, better in findings(path):
            count += 1
            print(f'{path}:{line}: {words!r}: {better}')
    if count:
        print(f'{count} wordings to replace')
    return 1 if count else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
