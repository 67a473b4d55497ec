"""`rass-mm jobs`: state, merge and repetition of the shards in an output folder."""

import argparse
import json
import logging
import sys
from pathlib import Path

from rass_mm.cli.retry import retry
from rass_mm.inference.shares import write_merged_shares
from rass_mm.jobs.merge import merge_shards
from rass_mm.jobs.status import DONE, INCOMPLETE, NEVER, RUNNING, STATES, JobState, job_state, listed, shortened


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds the arguments of `rass-mm jobs`."""
    actions = parser.add_subparsers(dest='action', required=True, metavar='ACTION', help='one of these:')
    status = actions.add_parser('status', help='show which shards are done, running, incomplete or never ran')
    status.add_argument('out', metavar='OUT', type=Path, help='output folder of the shards')
    status.add_argument('--json', action='store_true', help='print JSON')
    merge = actions.add_parser('merge', help='merge the manifests of all shards, when all are done')
    merge.add_argument('out', metavar='OUT', type=Path, help='output folder of the shards')
    again = actions.add_parser('retry', help='run the shards that are not done on this machine, one after the other')
    again.add_argument('out', metavar='OUT', type=Path, help='output folder of the shards')
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Prints the state of the shards, merges them or runs them again; returns the exit status.

    Raises:
        DataError: the folder has no shards, or they cannot be merged or run.
    """
    if arguments.action == 'retry':
        logging.basicConfig(level=logging.INFO, format='%(message)s')
        status = retry(arguments.out)
        if status:
            return status
    if arguments.action == 'merge':
        images = merge_shards(arguments.out, write_merged_shares)
        text = f'{arguments.out}: the shards are merged; the manifest has {images} images.'
    else:
        job = job_state(arguments.out)
        text = json.dumps(job.summary(), indent=1) if getattr(arguments, 'json', False) else described(job)
    sys.stdout.write(text + '\n')
    return int(arguments.action == 'retry' and not job.complete)


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
    if not job.of(RUNNING) and (job.of(INCOMPLETE) or job.of(NEVER)):
        lines.append(f'Run the other shards on this machine: rass-mm jobs retry {job.out}')
    return '\n'.join([*lines, 'Not complete:', *(f'  {fault}' for fault in shortened(job.faults()))])
