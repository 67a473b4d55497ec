"""Record of a benchmark and its tables.

The record is a JSON object:

* `kind` 'benchmark', `schema` 1, `command`, `created` (UTC), `seed`, `size` [H, W], `batch`, `iterations`, `warmup`.
* `environment`: `device`, `device_name`, `threads`, `torch` (build), `cuda`, `cpu_capability`, `tf32`, `versions`.
* `ceiling`: for each dtype `matmul`, `convolution` (TFLOP/s) and `shapes` (TFLOP/s of each measured shape).
* `variants`: a list in the given order, whose first entry is the reference. Each entry contains
    * `name`, `config`, `checkpoint` (None: random weights), `overrides`, `dtype`, `compile`, `channels_last`, `windows`
      (None: value of the config), `prepared`, `released`, `exported`, `test_cfg`, `notes`;
    * `seconds` of a pass over the batch: `median`, `low`, `high` (quartiles), `per_iteration`;
    * `images_per_second`, `tflop_per_image`, `tflops` (TFLOP/s), `share_of_matmul`, `share_of_convolution`; the last
      four are None for exported models, whose operations are not counted;
    * `stages`: for each stage `seconds`, `share` (of `staged_seconds`), `tflop_per_image`, `tflops`, `share_of_matmul`,
      `share_of_convolution`, `per_iteration`. `seconds` is the median; for the stage 'other', it is the remainder. The
      stages are measured in separate passes that synchronize the device around every stage. The sum of their seconds is
      therefore `staged_seconds`, which differs slightly from `seconds.median`;
    * `staged_seconds`: the median duration of these passes;
    * `memory`: `method`, `weights_bytes`, `pass_bytes` (peak memory of a pass above the level before it; None if it
      cannot be measured), `peak_bytes` (their sum, the memory that the variant alone requires);
    * `parameters`: `all`, `running` (read in a pass), `trained`; an empty dict for exported models.
* `ratios`: for each variant except the first, its speed-up: `variant`, `reference`, `median`, `low`, `high` and
  `per_iteration`. The speed-up is the seconds of the reference divided by those of the variant in neighbouring passes.

`share_of_matmul` and `share_of_convolution` are fractions of the rates in `ceiling` for the same dtype. A multiply-add
counts as 2 operations.
"""

import json
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from rass_mm.analysis.report.tables import markdown_table
from rass_mm.analysis.speed.ceiling import TERA
from rass_mm.analysis.speed.exported import ExportedJob
from rass_mm.analysis.speed.job import Job
from rass_mm.analysis.speed.measure import Measured
from rass_mm.analysis.speed.memory import METHODS
from rass_mm.analysis.speed.stages import OTHER
from rass_mm.files.atomic import write_text
from rass_mm.versions import recorded_versions

KIND, SCHEMA = 'benchmark', 1
RATES = ('tflop_per_image', 'tflops', 'share_of_matmul', 'share_of_convolution')
JSON_FILE, MARKDOWN_FILE = 'benchmark.json', 'benchmark.md'


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Returns the median and the quartiles of the values, together with the values."""
    quartiles = statistics.quantiles(values, n=4, method='inclusive') if len(values) > 1 else [values[0]] * 3
    return {
        'median': statistics.median(values),
        'low': quartiles[0],
        'high': quartiles[2],
        'per_iteration': list(values),
    }


def shares(
    operations: float | None, seconds: float, batch: int, ceiling: dict[str, Any] | None
) -> dict[str, float | None]:
    """Computes TFLOP per image, TFLOP/s, and TFLOP/s as fractions of the rates measured on the device.

    All values are None if the operations were not counted.
    """
    if operations is None or ceiling is None:
        return dict.fromkeys(RATES)
    rate = operations / seconds / TERA if seconds > 0 else 0.0
    return {
        'tflop_per_image': operations / batch / TERA,
        'tflops': rate,
        'share_of_matmul': rate / ceiling['matmul'],
        'share_of_convolution': rate / ceiling['convolution'],
    }


def stage_records(measured: Measured, batch: int, ceiling: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Returns the `stages` of a variant. Their seconds sum to the median duration of the passes with stage timing."""
    passes = measured.stage_seconds
    total = staged_seconds(measured)
    by_stage = {name: [seconds.get(name, 0.0) for seconds in passes] for name in passes[0]}
    medians = {name: statistics.median(values) for name, values in by_stage.items()}
    medians[OTHER] = total - sum(seconds for name, seconds in medians.items() if name != OTHER)
    return {
        name: {
            'seconds': medians[name],
            'share': medians[name] / total,
            **shares(measured.operations.get(name), medians[name], batch, ceiling),
            'per_iteration': values,
        }
        for name, values in by_stage.items()
    }


def staged_seconds(measured: Measured) -> float:
    """Returns the median duration of the passes with stage timing."""
    return statistics.median(sum(seconds.values()) for seconds in measured.stage_seconds)


def variant_record(job: Job | ExportedJob, measured: Measured, ceiling: dict[str, Any] | None) -> dict[str, Any]:
    """Returns the entry of a job in `variants`."""
    seconds = spread(measured.seconds)
    taken = max(measured.peaks) if measured.peaks else None
    return {
        **asdict(job.variant),
        'test_cfg': dict(job.test_cfg or {}),
        'notes': job.notes,
        'seconds': seconds,
        'images_per_second': job.batch / seconds['median'],
        **shares(sum(measured.operations.values()) if job.counts else None, seconds['median'], job.batch, ceiling),
        'stages': stage_records(measured, job.batch, ceiling),
        'staged_seconds': staged_seconds(measured),
        'memory': {
            'method': METHODS.get(job.device.type, METHODS['cpu']) if taken is not None else None,
            'weights_bytes': job.weights_bytes,
            'pass_bytes': taken,
            'peak_bytes': job.weights_bytes + taken if taken is not None else None,
        },
        'parameters': measured.parameters,
    }


def ratio_records(variants: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the `ratios`: the speed-up of each variant over the first variant, pass by pass."""
    first = variants[0]
    return [
        {
            'variant': other['name'],
            'reference': first['name'],
            **spread(
                [
                    mine / own
                    for mine, own in zip(
                        first['seconds']['per_iteration'], other['seconds']['per_iteration'], strict=True
                    )
                ]
            ),
        }
        for other in variants[1:]
    ]


def environment(device: torch.device) -> dict[str, Any]:
    """Returns the `environment`: device, threads and versions."""
    cuda = device.type == 'cuda'
    return {
        'device': str(device),
        'device_name': torch.cuda.get_device_name(device) if cuda else processor_name(),
        'threads': torch.get_num_threads(),
        'torch': torch.__version__,
        'cuda': torch.version.cuda if cuda else None,
        'cpu_capability': torch.backends.cpu.get_cpu_capability(),
        'tf32': {'matmul': torch.backends.cuda.matmul.allow_tf32, 'convolution': torch.backends.cudnn.allow_tf32},
        'versions': recorded_versions(),
    }


def processor_name() -> str:
    """Returns the model of the processor if the system reports it, otherwise the architecture."""
    info = Path('/proc/cpuinfo')
    lines = info.read_text(encoding='utf-8').splitlines() if info.is_file() else []
    named = next((line.partition(':')[2].strip() for line in lines if line.startswith('model name')), '')
    return named or platform.processor() or platform.machine()


def record(
    jobs: Sequence[Job | ExportedJob], found: Sequence[Measured], ceilings: dict[str, Any], run: dict[str, Any]
) -> dict[str, Any]:
    """Returns the record of a benchmark, as described in the docstring of the module.

    Args:
        jobs: the measured jobs.
        found: the measurements of each job.
        ceilings: the result of `measured_ceiling` for each dtype.
        run: the entries `command`, `seed`, `iterations` and `warmup`.
    """
    variants = [
        variant_record(job, measured, ceilings[job.variant.dtype] if job.counts else None)
        for job, measured in zip(jobs, found, strict=True)
    ]
    return {
        'kind': KIND,
        'schema': SCHEMA,
        'created': datetime.now(UTC).isoformat(timespec='seconds'),
        **run,
        'size': list(jobs[0].size),
        'batch': jobs[0].batch,
        'environment': environment(jobs[0].device),
        'ceiling': ceilings,
        'variants': variants,
        'ratios': ratio_records(variants),
    }


def write(record: dict[str, Any], folder: Path) -> None:
    """Writes the record to `benchmark.json` and its tables to `benchmark.md`."""
    write_text(folder / JSON_FILE, json.dumps(record, indent=2, default=str) + '\n')
    write_text(folder / MARKDOWN_FILE, markdown(record))


def markdown(record: dict[str, Any]) -> str:
    """Returns the tables of a record as Markdown: all variants, the stages of each variant, and remarks."""
    where, size = record['environment'], 'x'.join(map(str, record['size']))
    lines = [
        f'# Benchmark: {record["batch"]} random image(s) of {size} at a time',
        f'{where["device"]} ({where["device_name"]}), {where["threads"]} CPU thread(s), torch {where["torch"]}; '
        f'{record["iterations"]} passes of each variant in turns after {record["warmup"]} warm-up pass(es), seed '
        f'{record["seed"]}; medians, with quartiles in brackets.',
        '; '.join(
            f'Measured ceiling in {dtype}: matmul {rates["matmul"]:.3g}, convolution {rates["convolution"]:.3g} TFLOP/s'
            for dtype, rates in record['ceiling'].items()
        )
        + '.',
        overview(record),
        *(f'## Stages of {variant["name"]}\n\n{stage_table(variant)}' for variant in record['variants']),
        '\n'.join(remarks(record)),
        f'`{record["command"]}`',
    ]
    return '\n\n'.join(line.strip() for line in lines) + '\n'


def overview(record: dict[str, Any]) -> str:
    """Returns a table with a row per variant."""
    ratios = {ratio['variant']: ratio for ratio in record['ratios']}
    header = ['variant', 'images/s', 'seconds per pass', 'times as fast', 'peak memory (GiB)', 'parameters (M)']
    header += ['running (M)', 'trained (M)', 'TFLOP/image', 'TFLOP/s', 'of matmul', 'of convolution']
    rows = []
    for variant in record['variants']:
        ratio = ratios.get(variant['name'])
        peak = variant['memory']['peak_bytes']
        rows.append(
            [
                variant['name'],
                f'{variant["images_per_second"]:.4g}',
                bracketed(variant['seconds']),
                bracketed(ratio) if ratio else '1 (reference)',
                f'{peak / 2**30:.2f}' if peak is not None else 'not measured',
                *_parameter_cells(variant['parameters']),
                *rate_cells(variant),
            ]
        )
    return markdown_table(header, rows)


def stage_table(variant: dict[str, Any]) -> str:
    """Returns a table with a row per stage and a row for their total."""
    header = ['stage', 'seconds', 'share', 'TFLOP/image', 'TFLOP/s', 'of matmul', 'of convolution']
    rows = [
        [name, f'{stage["seconds"]:.4g}', f'{stage["share"]:.1%}', *rate_cells(stage)]
        for name, stage in variant['stages'].items()
    ]
    total = ['total', f'{variant["staged_seconds"]:.4g}', '100.0%', rate_cells(variant)[0], '', '', '']
    return markdown_table(header, [*rows, total])


def _parameter_cells(counts: dict[str, int]) -> list[str]:
    return [f'{counts[key] / 1e6:.2f}' if counts else '' for key in ('all', 'running', 'trained')]


def rate_cells(part: dict[str, Any]) -> list[str]:
    """Formats TFLOP per image, TFLOP/s and its percentages of the rates measured on the device as table cells."""
    if part['tflop_per_image'] is None:
        return [''] * len(RATES)
    cells = [f'{part["tflop_per_image"]:.4g}', f'{part["tflops"]:.3g}']
    return cells + [f'{part[key]:.0%}' for key in ('share_of_matmul', 'share_of_convolution')]


def bracketed(values: dict[str, Any]) -> str:
    """Formats a median with its quartiles in brackets."""
    return f'{values["median"]:.4g} ({values["low"]:.4g}-{values["high"]:.4g})'


def remarks(record: dict[str, Any]) -> list[str]:
    """Returns remarks on how to read the tables."""
    methods = {variant['memory']['method'] for variant in record['variants']} - {None}
    lines = [f'* {variant["name"]}: {note}.' for variant in record['variants'] for note in variant['notes']]
    lines += [f'* Peak memory: the weights plus the peak of a pass beyond them, measured by {how}.' for how in methods]
    return [
        *lines,
        '* Stages are timed in separate passes that synchronize the device around each stage; `other` is the rest.',
        '* A multiply-add is 2 operations; elementwise operations are not counted.',
    ]
