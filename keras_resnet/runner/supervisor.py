"""The supervisor: the work is done in a child process, since native code may crash."""

import contextlib
import ctypes
import mmap
import os
import signal
import sys
import traceback

from keras_resnet.runner.output import Messages

FORWARDED = (signal.SIGINT, signal.SIGTERM)
MAX_CRASHES = 3
CRASH_HINT = (
    "the file may be damaged, or the delegate built for another version of the runtime"
)


class SharedState(ctypes.Structure):
    """What the working process tells the supervisor, in memory that both share.

    Attributes:
        done: int, how many images are finished.
        resumable: bool, whether another process can go on with the next image.
        overlapping: bool, whether several images are in work at once.
        one_by_one: bool, whether that is forbidden, because several were in work
            when a process crashed.
    """

    _fields_ = [
        ("done", ctypes.c_int64),
        ("resumable", ctypes.c_bool),
        ("overlapping", ctypes.c_bool),
        ("one_by_one", ctypes.c_bool),
        ("_begun", ctypes.c_char * 4000),
    ]

    def begin(self, text):
        """Notes what is begun, in case it crashes the process."""
        self._begun = text.encode("utf-8", "backslashreplace")[:4000]

    def last_begun(self):
        """Returns what was begun last."""
        return self._begun.decode("utf-8", "replace")


def run_and_exit(work, state):
    """Runs `work` in the child process, and keeps native code off its stderr."""
    with contextlib.suppress(Exception):  # only Linux can end a child with its parent
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    # Ctrl-C reaches the child through its parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    with contextlib.suppress(OSError, AttributeError):  # a closed stderr
        own = os.dup(2)
        sys.stderr = open(own, "w", buffering=1, encoding=sys.stderr.encoding)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        code = work(state)
    except SystemExit as leaving:  # --help
        code = leaving.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)  # native libraries crash most at a regular exit


def run_child(work, state):
    """Returns the exit code of a child process, or minus the signal that ended it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    child = os.fork()
    if not child:
        run_and_exit(work, state)
    received = []

    def forward(number, frame):
        received.append(number)
        # The first one asks the child to end, the second one kills it.
        os.kill(child, signal.SIGTERM if len(received) == 1 else signal.SIGKILL)

    for number in FORWARDED:
        signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    status = os.waitpid(child, 0)[1]
    if received:
        return 130
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def supervise(work):
    """Runs `work` in child processes, so that a crash of native code is one line.

    After a crash with several images in work, the next child takes them one by one:
    then the image that crashes it is known, and the child after it goes on with the
    next image. A result that was just being printed is printed again, rather than
    never.

    Args:
        work: function of a `SharedState`; returns the exit code.

    Returns:
        the exit code.
    """
    state = SharedState.from_buffer(mmap.mmap(-1, mmap.PAGESIZE))
    messages, code = Messages(), -1
    while code < 0:
        last_code, code = code, run_child(work, state)
        if code < 0 and (state.one_by_one or not state.overlapping):
            why = signal.Signals(-code).name
            hint = "out of memory?" if -code == signal.SIGKILL else CRASH_HINT
            messages.error(f"{state.last_begun()}: native code crashed ({why}); {hint}")
            if messages.errors == MAX_CRASHES or not state.resumable:
                return 2
            state.done += 1
        state.one_by_one = code < 0 or state.one_by_one
    if state.one_by_one and not messages.errors:
        why = signal.Signals(-last_code).name
        messages.error(f"native code crashed ({why}), and did not when tried again")
    return 2 if messages.errors and code == 0 else code
