r"""Starts several workers of a training on this machine.

Example:
  python training/launch.py --workers=2 \
      training/train.py --strategy=multi_worker --model=resnet8

Every worker gets its TF_CONFIG, with a free port; the first one's output is shown.
On several machines start train.py on each, with TF_CONFIG or under Slurm.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time


def main(argv=None):
    """Starts the workers and waits for them."""
    parser = argparse.ArgumentParser(
        prog=argv and argv[0],
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workers", type=int, default=2, metavar="N")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="script flags...")
    options = parser.parse_args((sys.argv if argv is None else argv)[1:])
    if options.workers < 1 or not options.command:
        parser.error("needs --workers=N and a script, as in --help")
    # A file, or a command such as `train`.
    is_file = options.command[0].endswith(".py")
    script = [] if is_file else ["-m", "keras_resnet"]
    processes = []

    def pass_on(number, frame):
        for process in processes:
            process.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    try:
        for config in configurations(options.workers):
            processes.append(
                subprocess.Popen(
                    [sys.executable, *script, *options.command],
                    env={**os.environ, "TF_CONFIG": json.dumps(config)},
                    stdout=subprocess.DEVNULL if processes else None,
                )
            )
        # The first that fails leaves the others waiting for it.
        while all(process.poll() in (None, 0) for process in processes):
            if all(process.poll() == 0 for process in processes):
                return 0
            time.sleep(0.1)
        code = next(p.returncode for p in processes if p.poll() not in (None, 0))
        return code if code > 0 else 128 - code  # as a shell does
    except KeyboardInterrupt:
        return 130
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(timeout=60)  # it may be writing a checkpoint
            except subprocess.TimeoutExpired:  # it waits for one that is gone
                process.kill()


def configurations(workers):
    """Returns a TF_CONFIG for each worker, on free ports of this machine."""
    listeners = [socket.create_server(("localhost", 0)) for _ in range(workers)]
    addresses = [f"localhost:{s.getsockname()[1]}" for s in listeners]
    for listener in listeners:
        listener.close()
    return [
        {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        for index in range(workers)
    ]
