"""A process that has imported the package and runs Python scripts in forks of itself, so that they start at once.

`commands.warm` starts it on its first use and asks it. As a script, this file asks a running one in place of an
interpreter: `python warm.py SOCKET [-W ACTION] (SCRIPT | -m MODULE) [ARGUMENTS ...]`. This part imports little.
"""

import contextlib
import json
import os
import signal
import socket
import sys

READY = 'ready\n'


def ask(address, arguments, cwd=None, env=None, outputs=(0, 1, 2)):
    """Runs a script in a fork.

    Args:
        address: path of the socket.
        arguments: what follows the interpreter: optional `-u`, `-P` or `-W ACTION`, then a script or `-m MODULE`, then
            its arguments.
        cwd: working directory (default: the one of this process).
        env: environment (default: the one of this process).
        outputs: file descriptors of its standard input, output and error.

    Returns:
        A connection that reads `PID` and at the end ` STATUS`, the exit status or the negative number of a signal.
    """
    arguments = [str(part) for part in arguments]
    while arguments[0] in ('-W', '-u', '-P'):
        del arguments[: 2 if arguments[0] == '-W' else 1]
    if arguments[0].startswith('-') and arguments[0] != '-m':
        raise ValueError(f'{arguments[0]}: only a script or -m MODULE can run in a fork')
    request = {'arguments': arguments, 'cwd': str(cwd or os.getcwd()), 'env': dict(env or os.environ)}
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(address))
    socket.send_fds(connection, [b'x'], list(outputs))
    connection.sendall(json.dumps(request).encode() + b'\n')
    return connection


def answer(connection):
    """Returns the exit status of a script that `ask` began."""
    text = b''
    while part := connection.recv(64):
        text += part
    return int(text.split()[1])


def terminable(connection):
    """Returns `answer`. A script whose asking process is terminated, as torchrun does, is terminated too."""
    process = int(connection.recv(64, socket.MSG_PEEK).split()[0])

    def terminate(*_):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)

    signal.signal(signal.SIGTERM, terminate)
    return answer(connection)


def serve(address):
    """Answers until standard input ends."""
    import select

    _import_all()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(address))
    listener.listen(16)
    sys.stdout.write(READY)
    sys.stdout.flush()
    running = {}
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [], 0.02)
        if sys.stdin in ready:
            for process in running:
                os.killpg(process, signal.SIGKILL)
            return
        if listener in ready:
            connection, _ = listener.accept()
            process = os.fork()
            if not process:
                listener.close()
                _run(connection)
            connection.sendall(str(process).encode())
            running[process] = connection
        for process in list(running):
            found, status = os.waitpid(process, os.WNOHANG)
            if found:
                connection = running.pop(process)
                connection.sendall(f' {os.waitstatus_to_exitcode(status)}'.encode())
                connection.shutdown(socket.SHUT_RDWR)  # forks that began later have copies of it
                connection.close()


def _import_all():
    import torch

    torch.set_num_threads(1)
    from campaign.server import warm_up

    warm_up()


def _run(connection):
    import random
    import runpy
    import traceback

    import numpy as np

    os.setsid()
    _, outputs, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile() as file:
        request = json.loads(file.readline())
    connection.close()
    for target, source in enumerate(outputs):
        os.dup2(source, target)
        os.close(source)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode, closefd=False) for number, mode in enumerate('rww'))
    os.chdir(request['cwd'])
    os.environ.clear()
    os.environ.update(request['env'])
    random.seed()
    np.random.seed()
    sys.executable = os.environ.pop('WARM_EXECUTABLE', sys.executable)
    script, *rest = request['arguments']
    status = 1
    try:
        if script == '-m':
            sys.argv = rest
            sys.path.insert(0, os.getcwd())
            runpy.run_module(rest[0], run_name='__main__', alter_sys=True)
        else:
            sys.argv = [script, *rest]
            sys.path.insert(0, os.path.dirname(os.path.abspath(script)))
            runpy.run_path(script, run_name='__main__')
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        _end(status)


def _end(status):
    """Ends like an interpreter does: threads, functions of atexit, open files."""
    import atexit
    import threading

    try:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status & 0xFF)


if __name__ == '__main__':
    if sys.argv[1] == '--serve':
        serve(sys.argv[2])
    else:
        os.environ.pop('RASS_MM_PARENT', None)  # the parent of the fork is another process
        sys.exit(terminable(ask(sys.argv[1], sys.argv[2:])) & 0xFF)
