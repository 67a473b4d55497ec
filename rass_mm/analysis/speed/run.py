"""Runs the benchmark that a command line describes."""

import argparse
from pathlib import Path
from typing import Any

import torch

from rass_mm.analysis.speed.ceiling import measured_ceiling
from rass_mm.analysis.speed.exported import ExportedJob
from rass_mm.analysis.speed.job import Job
from rass_mm.analysis.speed.measure import measure, passes
from rass_mm.analysis.speed.models import Models
from rass_mm.analysis.speed.report import record
from rass_mm.analysis.speed.variants import Variant, check_names, parse_variant
from rass_mm.devices import chosen_device
from rass_mm.engine.records import command_line
from rass_mm.parallel import progress_bar


def benchmark(arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs the benchmark that a command line describes and returns its record (see `rass_mm.analysis.speed.report`)."""
    variants = chosen_variants(arguments)
    device = chosen_device(arguments.device)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with progress_bar() as bar:
        reading = bar.add_task('models', total=len(variants))
        models, jobs = Models(device, arguments.seed), []
        for variant in variants:
            images = arguments.size, arguments.batch, arguments.seed
            jobs.append(ExportedJob(variant, device, *images) if variant.exported else Job(variant, models, *images))
            bar.advance(reading)
        models.forget_sources()
        dtypes = list(dict.fromkeys(variant.dtype for variant in variants if not variant.exported))
        ceilings = {
            dtype: measured_ceiling(device, dtype)
            for dtype in bar.track(dtypes, total=len(dtypes), description='ceiling')
        }
        running = bar.add_task('passes', total=passes(len(jobs), arguments.iterations, arguments.warmup))
        found = measure(jobs, arguments.iterations, arguments.warmup, lambda: bar.advance(running))
    command = {'command': command_line(), 'seed': arguments.seed}
    return record(jobs, found, ceilings, {**command, 'iterations': arguments.iterations, 'warmup': arguments.warmup})


def chosen_variants(arguments: argparse.Namespace) -> list[Variant]:
    """Returns the variants of a command line, with the reference first.

    Raises:
        ConfigError: a dtype is unknown, a text is not a variant, or two variants have the same name.
    """
    options = {name: getattr(arguments, name) for name in ('dtype', 'compile', 'channels_last', 'windows')}
    first = Variant(
        Path(arguments.config).stem,
        arguments.config,
        arguments.checkpoint,
        overrides=arguments.cfg_options or {},
        **options,
    )
    others = [Variant(Path(config).stem, config, **options) for config in arguments.against]
    variants = [first, *others, *(parse_variant(text, first) for text in arguments.variant)]
    check_names(variants)
    return variants
