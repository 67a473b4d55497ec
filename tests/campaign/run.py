"""`make campaign`: runs all cases, resumes where it was stopped, and writes the report.

python tests/campaign/run.py --out FOLDER [--only PATTERN ...] [--report docs/reliability.md]
"""

import argparse
import json
import re
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from campaign import server
from campaign.kit import make_kit
from campaign.report import write_report
from campaign.table import all_cases
from rich.console import Console
from rich.progress import track


def main() -> int:
    """Runs the cases that have no result yet; returns 1 if any case is wrong."""
    parser = argparse.ArgumentParser(description='Runs the campaign.')
    parser.add_argument('--out', type=Path, default=Path('campaign_out'), help='folder for results and failed cases')
    parser.add_argument('--only', nargs='+', default=['.'], help='patterns of names of cases to run')
    parser.add_argument('--report', type=Path, help='Markdown file to write')
    parser.add_argument('--part', default='1/1', help='PART/PARTS: run every PARTS-th case only')
    parser.add_argument('--again', action='store_true', help='run cases again that were wrong')
    arguments = parser.parse_args()
    out, console = arguments.out.resolve(), Console(stderr=True)
    part, parts = map(int, arguments.part.split('/'))
    out.mkdir(parents=True, exist_ok=True)
    done = read_results(out)
    if arguments.again:
        done = {name: result for name, result in done.items() if not result['faults']}
    cases = [case for case in all_cases() if any(re.search(pattern, case.name) for pattern in arguments.only)]
    pending = [case for case in cases if case.name not in done][part - 1 :: parts]
    server.warm_up()
    kit = make_kit(out / 'kit')
    with (out / f'results-{part}.jsonl').open('a') as file:
        for case in track(pending, f'{len(pending)} of {len(cases)} cases', console=console):
            started = time.monotonic()
            outcome, faults = server.run_case(case, kit, out / 'cases' / case.name)
            last = [line for line in outcome.text.strip().splitlines() if line.strip()][-1:]
            result = {
                'name': case.name,
                'faults': faults,
                'ok': case.ok,
                'malicious': case.malicious,
                'seconds': round(time.monotonic() - started, 2),
                'peak': round(outcome.peak),
                'message': ''.join(last)[:400],
            }
            done[case.name] = result
            file.write(json.dumps(result) + '\n')
            file.flush()
            if faults:
                console.print(f'{case.name}: {"; ".join(faults)} | {result["message"][:160]}', markup=False)
    chosen = [done[case.name] for case in cases if case.name in done]
    wrong = [result for result in chosen if result['faults']]
    console.print(f'{len(chosen)} cases, {len(wrong)} wrong', markup=False)
    if arguments.report:
        write_report(arguments.report, chosen)
    return bool(wrong)


def read_results(out: Path) -> dict[str, dict]:
    """Returns the last result of each case by its name."""
    found = {}
    for file in sorted(out.glob('results-*.jsonl'), key=lambda path: path.stat().st_mtime):
        for line in file.read_text().splitlines():
            result = json.loads(line)
            found[result['name']] = result
    return found


if __name__ == '__main__':
    sys.exit(main())
