"""Kills of running jobs at random moments.

Nothing is lost, nothing stays behind, and a resumed job ends as if it had never been killed.

    python tests/campaign/kills.py --out FOLDER [--count 200] [--only PATTERN ...] [--long | --full] [--report FILE]
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from campaign import server
from campaign.cases import TRACEBACK
from campaign.kit import SMALL, data_options, make_kit
from campaign.report import write_kills
from rich.console import Console
from rich.progress import track

PATIENCE, LONG_PATIENCE = 600, 3600
"""Seconds after which a job is hanging, and a job of many images."""
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
LONG, ROUNDS = ('make-lq in processes', 'restore', 'segment'), 20
"""Jobs for `--long`, and the number of kills of each."""
MANY = 1000
SHARES = (0.05, 0.3, 0.6, 0.9)
"""Shares of the space that a job needs, after which the disk is full."""
PAGE = 4096
TRAIN = ['train_cfg.max_iters=12', 'train_cfg.val_interval=100', 'default_hooks.checkpoint.interval=3']
TRAIN += ['default_hooks.logger.interval=1', *SMALL]


@dataclass(frozen=True)
class Job:
    """A command that can be killed and given again.

    Args:
        command: arguments of `rass-mm`; `$FX` is the kit.
        resume: arguments to add when the command is given again.
        compared: patterns of files whose bytes must equal those of a job that was never killed.
        training: whether the losses of each iteration are compared as well.
        images: number of images in the folder `in`.
        processes: number of processes, which torchrun starts if there are several.
        volatile: suffixes of files whose bytes may differ.
        weight: number of kills for each kill of other jobs; less for slow ones.
        seconds: duration of a job that is only killed and never resumed; None runs it to its end.
    """

    command: str
    resume: str = ''
    compared: tuple[str, ...] = ('out/**/*',)
    training: bool = False
    images: int = 0
    processes: int = 1
    volatile: tuple[str, ...] = ('.log', '.jsonl', '.lock')
    weight: float = 1
    seconds: float | None = None


def _train(config: str, *options: str) -> str:
    given = [*data_options('$FX/data'), *TRAIN, *options]
    return ' '.join(['train', config, '--work-dir', 'out', '--cfg-options', *given])


RESTORER = '--adapter $FX/adapter.safetensors --base $FX/base --window 64 --overlap 16'
JOBS = {
    'train RASS': Job(
        _train('rass/rass_scenes_tiny.py', 'model.backbone.base=$FX/base'), '--resume', (), training=True
    ),
    'train SCR': Job(_train('scr/scr_scenes_tiny.py', 'model.base=$FX/base'), '--resume', (), training=True),
    'train RASS, two processes': Job(
        _train('rass/rass_scenes_tiny.py', 'model.backbone.base=$FX/base'),
        '--resume',
        (),
        training=True,
        processes=2,
        weight=0.2,
    ),
    'train ResNet': Job(_train('baselines/resnet_scenes_tiny.py'), '--resume', (), training=True),
    'train ResNet with workers': Job(
        _train('baselines/resnet_scenes_tiny.py', 'train_dataloader.num_workers=2'), '--resume', (), training=True
    ),
    'make-lq': Job('make-lq in out --workers 1', images=24),
    'make-lq in processes': Job('make-lq in out --workers 2', images=24),
    'restore': Job(f'restore in out {RESTORER}', images=24),
    'segment': Job('segment in out --checkpoint $FX/resnet.pth --device cpu', images=24),
    'make-scenes': Job('make-scenes out --train 30 --val 6 --size 96 --workers 1'),
    'make-base': Job(
        'make-base out --scenes 6 --vae-steps 12 --vae-batch 1 --vae-crop 32 --unet-steps 12 --unet-batch 1 '
        '--unet-crop 8'
    ),
    'robustness': Job(
        'robustness baselines/resnet_scenes_tiny.py $FX/resnet.pth --out out --name curve --cfg-options '
        + ' '.join([*data_options('$FX/data'), *SMALL]),
        compared=(),
    ),
    'check-data': Job(
        'check-data baselines/resnet_scenes_tiny.py --workers 1 --json out/found.json --cfg-options '
        + ' '.join(data_options('$FX/data')),
    ),
    'convert': Job('convert $FX/published.pkl out/a.safetensors --base $FX/base'),
    'demo': Job('demo --out out', weight=0.3, seconds=40),
}


def prepare(job: Job, folder: Path, kit: Path) -> None:
    """Makes the inputs of a job in an empty working directory."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    fill(job, folder, kit)


def fill(job: Job, folder: Path, kit: Path) -> None:
    """Makes the inputs of a job."""
    if job.images:
        (folder / 'in').mkdir()
        sources = sorted((kit / 'data' / 'img_dir').rglob('*.png'))
        for number in range(job.images):
            shutil.copy(sources[number % len(sources)], folder / 'in' / f'{number:03}.png')


def log_of(folder: Path, again: bool) -> Path:
    """Returns the log of a job; it is beside its folder, whose file system may be full."""
    return folder.with_name(folder.name + ('.again.log' if again else '.first.log'))


def start(job: Job, folder: Path, kit: Path, again: bool) -> int:
    """Starts a job in a session of its own; returns its process id."""
    command = job.command.split(' ')
    if again and job.resume:
        command[2:2] = [job.resume]
    command = [part.replace('$FX', str(kit)) for part in command]
    child = os.fork()
    if child:
        return child
    from rass_mm_cli.main import main

    signal.signal(signal.SIGINT, signal.default_int_handler)
    environment = {'RASS_MM_CACHE': str(folder / 'cache')}
    call = (lambda: main(command)) if job.processes == 1 else (lambda: _launched(command, job.processes))
    server.in_child(call, folder, log_of(folder, again), environment)
    raise AssertionError


def _launched(command: list[str], processes: int) -> int:
    """Runs a command in several processes, as tools/dist_train.sh does."""
    from torch.distributed.run import main

    environment = f'--nproc-per-node={processes} --nnodes=1 --standalone'.split()
    main([*environment, '-m', 'rass_mm_cli', *command, '--launcher', 'pytorch'])
    return 0


def wait(child: int, seconds: float) -> int | None:
    """Waits for a process; returns its wait status, or None if it is still running."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        time.sleep(0.01)
    return None


def members(session: int, folder: Path) -> list[int]:
    """Returns the ids of the running processes of a session, and of those that torchrun started in their own."""
    found = []
    for entry in Path('/proc').iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                fields = (entry / 'stat').read_text().rpartition(')')[2].split()
                ours = int(fields[3]) == session or os.fsencode(folder / 'cache') in (entry / 'environ').read_bytes()
                if ours and fields[0] != 'Z':
                    found.append(int(entry.name))
    return found


def patience(job: Job) -> int:
    """Returns the seconds after which a job is hanging."""
    return LONG_PATIENCE if job.images >= MANY else PATIENCE


def run_whole(job: Job, folder: Path, kit: Path, again: bool = False) -> tuple[float, str | None]:
    """Runs a job to its end; returns its seconds and what went wrong, or None."""
    began = time.monotonic()
    child = start(job, folder, kit, again)
    status = wait(child, patience(job))
    if status is None:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return patience(job), 'it hung'
    log = log_of(folder, again).read_text(errors='replace')
    wrong = f'status {os.waitstatus_to_exitcode(status)}: {log[-300:]}' if status else None
    return time.monotonic() - began, wrong


def killed(job: Job, folder: Path, kit: Path, number: signal.Signals, after: float) -> list[str]:
    """Runs a job and kills it after some seconds; returns what is wrong."""
    prepare(job, folder, kit)
    return stopped(start(job, folder, kit, again=False), folder, number, after, again=False)


def stopped(child: int, folder: Path, number: signal.Signals, after: float, again: bool) -> list[str]:
    """Kills a running job after some seconds; returns what is wrong."""
    status = wait(child, after)
    if status is None:
        os.kill(child, number)
        status = wait(child, 20)
    faults = []
    if status is None:
        faults.append(f'still running 20 s after {number.name}')
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    elif number == signal.SIGINT and os.waitstatus_to_exitcode(status) not in (0, 130, 1):
        faults.append(f'ended with {os.waitstatus_to_exitcode(status)} after Ctrl-C')
    log = log_of(folder, again).read_text(errors='replace')
    if TRACEBACK in log and 'SignalException' not in log:  # torchrun's own, when it is terminated
        faults.append('traceback')
    end = time.monotonic() + 60  # torch's workers look for their parent every few seconds
    while (left := members(child, folder)) and time.monotonic() < end:
        time.sleep(0.05)
    if left:
        faults.append(f'{len(left)} processes outlived it')
    for process in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return faults


def resumed(job: Job, folder: Path, kit: Path) -> list[str]:
    """Gives the command of a killed job again; returns what is wrong."""
    _, wrong = run_whole(job, folder, kit, again=True)
    return [f'given again: {wrong}'] if wrong else []


def contents(job: Job, folder: Path) -> dict[str, str]:
    """Returns the hashes of the compared files."""
    files = {path for pattern in job.compared for path in folder.glob(pattern) if path.is_file()}
    files = {path for path in files if path.suffix not in job.volatile}
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


def losses(folder: Path) -> dict[int, dict[str, float]]:
    """Returns the losses of each iteration, of the last run that computed it."""
    found = {}
    for file in sorted((folder / 'out').glob('*/vis_data/scalars.json')):
        for line in file.read_text().splitlines():
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if 'loss' in record or any('loss' in key for key in record):
                    found[record['step']] = {key: value for key, value in record.items() if 'loss' in key}
    return found


def compared(job: Job, folder: Path, whole: Path) -> list[str]:
    """Returns the differences of a resumed job from one that was never killed, and what stayed behind."""
    faults = []
    mine, theirs = contents(job, folder), contents(job, whole)
    differing = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
    if differing:
        faults.append(f'{len(differing)} of {len(theirs)} files differ, e.g. {differing[0]}')
    left = [path for path in folder.rglob('.*') if re.match(r'\..+-\w{8}', path.name) or path.suffix == '.lock']
    if left:
        faults.append(f'{len(left)} temporary files stayed behind, e.g. {left[0].name}')
    if job.training:
        mine, theirs = losses(folder), losses(whole)
        for step, values in theirs.items():
            off = [key for key, value in values.items() if abs(mine.get(step, {}).get(key, 1e9) - value) > 1e-6]
            if off:
                faults.append(f'iteration {step}: {off[0]} differs')
                break
    return faults


def long_jobs(jobs: dict[str, Job], out: Path, kit: Path, rng: random.Random) -> list[dict]:
    """Runs jobs of many images, each of which is killed again and again."""
    results = []
    for name in (name for name in LONG if name in jobs):
        job = replace(jobs[name], images=MANY)
        whole, folder = out / 'many', out / 'many_killed'
        prepare(job, whole, kit)
        title = f'{name}, {MANY} images'
        _, wrong = run_whole(job, whole, kit)
        if wrong:  # without it, nothing can be compared
            results.append({'job': title, 'signal': 'none', 'after': 0, 'faults': [f'not killed: {wrong}']})
            continue
        faults = []
        prepare(job, folder, kit)
        reached = []
        for index in range(ROUNDS):
            child = start(job, folder, kit, again=index > 0)
            wait_for(child, folder, written(whole) * (index + rng.random()) / ROUNDS)
            reached.append(written(folder) / written(whole))
            faults += stopped(child, folder, SIGNALS[index % 3], 0, index > 0)
        faults += resumed(job, folder, kit) + compared(job, folder, whole)
        signals = f'{ROUNDS} kills with {reached[0]:.0%} to {reached[-1]:.0%} of the files written'
        results.append({'job': title, 'signal': signals, 'after': 0, 'faults': faults})
    return results


def wait_for(child: int, folder: Path, files: float) -> None:
    """Waits until a job has written some number of files, or has ended."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and written(folder) < files:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
        time.sleep(0.02)


def written(folder: Path) -> int:
    """Returns the number of images that a job has written."""
    return sum(1 for _ in (folder / 'out').rglob('*.png'))


def full_disks(jobs: dict[str, Job], out: Path, kit: Path) -> list[dict]:
    """Runs each job on file systems that become full at some moment, and once more when there is space.

    Requires the permission to mount file systems.
    """
    results = []
    for name, job in jobs.items():
        if job.seconds is not None:
            continue
        prepare(job, out / 'sized', kit)
        inputs, total = used(out / 'sized'), used(out / 'whole' / name)
        for share in SHARES:
            folder = out / 'full'
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            size = inputs + int(share * (total - inputs))
            subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={size}', 'full', folder], check=True)
            try:
                faults = filled(job, folder, kit)
                subprocess.run(['mount', '-o', 'remount,size=2g', folder], check=True)
                faults += resumed(job, folder, kit) + compared(job, folder, out / 'whole' / name)
            finally:
                subprocess.run(['umount', '-l', folder], check=True)
            results.append({'job': name, 'signal': 'full disk', 'after': share, 'faults': faults})
    return results


def used(folder: Path) -> int:
    """Returns the bytes of the pages that the files of a folder take, and a page for each folder and link."""
    sizes = [path.lstat().st_size if path.is_file() else 1 for path in [folder, *folder.rglob('*')]]
    return sum(-(-size // PAGE) * PAGE for size in sizes)


def filled(job: Job, folder: Path, kit: Path) -> list[str]:
    """Runs a job on a file system that becomes full; returns what is wrong."""
    fill(job, folder, kit)
    _, wrong = run_whole(job, folder, kit)
    log = log_of(folder, False).read_text(errors='replace')
    faults = ['traceback'] if TRACEBACK in log else []
    if wrong is None:
        return [*faults, 'it ended with status 0']
    if 'status 1:' not in wrong or not re.search('No space left|disk space', log):
        faults.append(wrong)
    return faults


def planned(jobs: dict[str, Job], count: int) -> list[tuple[str, signal.Signals]]:
    """Returns the job and the signal of each kill, in turns of all jobs; slow jobs sit out some turns."""
    plan, turn = [], 0
    while len(plan) < count:
        for name, job in jobs.items():
            times = int((turn + 1) * job.weight) - int(turn * job.weight)
            plan += [(name, SIGNALS[int(turn * job.weight) % 3])] * times
        turn += 1
    return plan[:count]


def main() -> int:
    """Kills jobs and prints what is wrong; returns 1 if anything is."""
    parser = argparse.ArgumentParser(description='Kills running jobs at random moments.')
    parser.add_argument('--out', type=Path, default=Path('campaign_out'))
    parser.add_argument('--count', type=int, default=200, help='number of kills')
    parser.add_argument('--only', nargs='+', default=['.'], help='patterns of names of jobs')
    parser.add_argument('--full', action='store_true', help='fill the disk instead of killing; requires mount')
    parser.add_argument('--long', action='store_true', help='kill jobs of 1,000 images 20 times each')
    parser.add_argument('--report', type=Path, help='Markdown file to write')
    parser.add_argument('--seed', type=int, default=0)
    arguments = parser.parse_args()
    out, console = arguments.out.resolve(), Console(stderr=True)
    out.mkdir(parents=True, exist_ok=True)
    server.warm_up()
    kit = make_kit(out / 'kit')
    jobs = {name: job for name, job in JOBS.items() if any(re.search(pattern, name) for pattern in arguments.only)}
    durations = {}
    for name, job in jobs.items() if not arguments.long else ():
        if job.seconds is not None:
            durations[name] = job.seconds
            continue
        whole = out / 'whole' / name
        prepare(job, whole, kit)
        durations[name], wrong = run_whole(job, whole, kit)
        if wrong:
            raise RuntimeError(f'{name}: {wrong}')
    if arguments.full or arguments.long:
        found = full_disks(jobs, out, kit) if arguments.full else long_jobs(jobs, out, kit, random.Random(0))
        (out / ('full.jsonl' if arguments.full else 'long.jsonl')).write_text(
            ''.join(json.dumps(result) + '\n' for result in found)
        )
        for result in found:
            told = '; '.join(result['faults']) or 'right'
            console.print(f'{result["job"]}, {result["after"]:.0%}: {told}', markup=False)
        return any(result['faults'] for result in found)
    rng, wrong, results = random.Random(arguments.seed), 0, out / 'kills.jsonl'
    plan = planned(jobs, arguments.count)
    for index, (name, number) in enumerate(track(plan, 'kills', console=console)):
        folder, after = out / 'killed' / f'{index:03}', rng.uniform(0.05, 1) * durations[name]
        faults = killed(jobs[name], folder, kit, number, after)
        if jobs[name].seconds is None:
            faults += resumed(jobs[name], folder, kit) + compared(jobs[name], folder, out / 'whole' / name)
        result = {'job': name, 'signal': number.name, 'after': round(after, 2), 'faults': faults}
        with results.open('a') as file:
            file.write(json.dumps(result) + '\n')
        if faults:
            wrong += 1
            console.print(f'{index} {name}, {number.name} after {after:.2f} s: {"; ".join(faults)}', markup=False)
        else:
            shutil.rmtree(folder)
    console.print(f'{len(plan)} kills, {wrong} wrong', markup=False)
    if arguments.report:
        write_kills(arguments.report, [json.loads(line) for line in results.read_text().splitlines()])
    return bool(wrong)


if __name__ == '__main__':
    sys.exit(main())
