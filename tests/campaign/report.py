"""The report of a campaign: docs/reliability.md."""

from collections import Counter
from pathlib import Path


def write_report(path: Path, results: list[dict]) -> None:
    """Writes the table of groups between the marks of the page, or a new page."""
    rows = [
        '| group | inputs | valid controls | malicious | wrong | longest (s) | most memory (MiB) |',
        '|---|---|---|---|---|---|---|',
    ]
    groups = Counter(result['name'].partition('/')[0] for result in results)
    for group in [*sorted(groups), None]:
        chosen = [result for result in results if group is None or result['name'].startswith(f'{group}/')]
        cells = [
            group or 'all',
            len(chosen),
            sum(result['ok'] for result in chosen),
            sum(result['malicious'] for result in chosen),
            sum(bool(result['faults']) for result in chosen),
            f'{max((result["seconds"] for result in chosen), default=0):.1f}',
            max((result['peak'] for result in chosen), default=0),
        ]
        rows.append('| ' + ' | '.join(map(str, cells)) + ' |')
    _between(path, 'campaign', rows)


def write_kills(path: Path, results: list[dict]) -> None:
    """Writes the table of kills between the marks of the page, or a new page."""
    rows = ['| command | kills | SIGKILL | SIGTERM | SIGINT | wrong |', '|---|---|---|---|---|---|']
    jobs = list(dict.fromkeys(result['job'] for result in results))
    for job in [*jobs, None]:
        chosen = [result for result in results if job in (None, result['job'])]
        signals = Counter(result['signal'] for result in chosen)
        counts = [signals[name] for name in ('SIGKILL', 'SIGTERM', 'SIGINT')]
        cells = [job or 'all', len(chosen), *counts, sum(bool(result['faults']) for result in chosen)]
        rows.append('| ' + ' | '.join(map(str, cells)) + ' |')
    _between(path, 'kills', rows)


def _between(path: Path, mark: str, rows: list[str]) -> None:
    """Replaces the lines between two marks of a page."""
    start, end = f'<!-- {mark} -->', f'<!-- end of {mark} -->'
    text = path.read_text() if path.exists() else f'{start}\n{end}\n'
    before, _, rest = text.partition(start)
    after = rest.partition(end)[2]
    path.write_text(f'{before}{start}\n' + '\n'.join(rows) + f'\n{end}{after}')
