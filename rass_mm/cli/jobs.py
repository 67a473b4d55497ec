"""`rass-mm jobs`: state and merge of the shards in an output folder."""

import argparse
import json
import sys
from pathlib import Path

from rass_mm.inference.shares import write_merged_shares
from rass_mm.jobs.merge import merge_shards
from rass_mm.jobs.status import DONE, STATES, JobState, job_state, listed, shortened


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds the arguments of `rass-mm jobs`."""
    actions = parser.add_subparsers(dest='action', required=True, metavar='ACTION', help='one of these:')
    status = actions.add_parser('status', help='show which shards are done, running, incomplete or never ran')
    status.add_argument('out', metavar='OUT', type=Path, help='output folder of the shards')
    status.add_argument('--json', action='store_true', help='print JSON')
    merge = actions.add_parser('merge', help='merge the manifests of all shards, when all are done')
    merge.add_argument('out', metavar='OUT', type=Path, help='output folder of the shards')
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Prints the state of the shards, or merges them; returns 0.

    Raises:
        DataError: the folder has no shards, or they cannot be merged.
    """
    if arguments.action == 'merge':
        images = merge_shards(arguments.out, write_merged_shares)
        text = f'{arguments.out}: the shards are merged; the manifest has {images} images.'
    else:
        job = job_state(arguments.out)
        text = json.dumps(job.summary(), indent=1) if arguments.json else described(job)
    sys.stdout.write(text + '\n')
    return 0


def described(job: JobState) -> str:
    """Describes the state of a job: its counts, each shard that is not done, and what to do next."""
    failed = sum(len(state.failed) for state in job.shards)
    lines = [f'{job.out}: {job.done} of {job.planned} images done, {failed} failed, {len(job.shards)} shards']
    for name in STATES:
        numbers = job.of(name)
        lines += [f'{name}: {len(numbers)}{f" (shards {listed(numbers)})" if numbers else ""}']
    for state in job.shards:
        if state.state != DONE and state.record:
            process = f', {state.holder}' if state.holder else ''
            counts = f'{len(state.lines)} of {state.record["images"]} images'
            lines.append(f'shard {state.shard.number}: {state.state}, {counts}{process}')
    if job.complete:
        return '\n'.join([*lines, f'All shards are done. Merge them: rass-mm jobs merge {job.out}'])
    return '\n'.join([*lines, 'Not complete:', *(f'  {fault}' for fault in shortened(job.faults()))])
