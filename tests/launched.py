"""Starts commands with torchrun and on Ray."""

import os

from commands import ROOT, python, run, server, warm

PORTS = iter(range(20000 + os.getpid() % 10000 * 2, 65000))
LOCAL = ('--ray', 'local', '--ray-actors', 2)


def torchrun(script, *arguments, processes=2, **kwargs):
    """Runs a script of tools, or a command with torchrun, whose processes are forks that have imported the package."""
    shim = server().with_name('python')
    env = {'PYTHON': str(shim), 'PORT': str(next(PORTS)), 'WARM_EXECUTABLE': str(shim)}
    if script.endswith('.sh'):
        return run('bash', ROOT / 'tools' / script, processes, *arguments, env=env, **kwargs)
    common = ['--nproc_per_node', processes, '--master_addr', '127.0.0.1', '--master_port', env['PORT']]
    module = ['-m', 'torch.distributed.run', *common, '-m', 'rass_mm_cli', script, *arguments, '--shards', 'auto']
    return warm(*module, **kwargs)


def options_of(kit, command):
    """The options of a command on Ray: without those for processes of this machine."""
    return [] if command == 'make-lq' else kit.options[command]


def on_ray(kit, command, out, *options, images=None, **kwargs):
    """Runs a command with the options of a kit and those of Ray."""
    given = (images or kit.images, out, *options_of(kit, command), *options)
    return python('-m', 'rass_mm_cli', command, *given, **kwargs)
