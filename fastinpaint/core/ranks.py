"Which of the processes of a run this one is: read from what torchrun and `accelerate launch` set"
import os
import sys
import time
from contextlib import contextmanager, redirect_stdout

LAUNCHED = "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"


def _number(name, alone): return int(os.environ[name]) if all(o in os.environ for o in LAUNCHED) else alone


def world(): return _number("WORLD_SIZE", 1)
def rank(): return _number("RANK", 0)
def is_main(): return rank() == 0


def local_rank():
    "The number of this process among those of its machine, 0 where it is the only one of a run"
    return int(os.environ.get("LOCAL_RANK", 0)) if world() > 1 else 0


def local_world():
    "The number of processes on this machine"
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if world() > 1 else 1


def restarted():
    "Whether `torchrun --max-restarts` has started the processes again, after one of them had died"
    return world() > 1 and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


@contextmanager
def main_speaks():
    "A context in which only the main process prints to stdout"
    with open(os.devnull, "w") as silence, redirect_stdout(sys.stdout if is_main() else silence): yield


def let_main_fail_first(seconds=10):
    """What fails in every process is told by the main one: with it the launcher ends the others, in here.

    Whoever comes out of it has failed alone and has something to say of its own."""
    if not is_main(): time.sleep(seconds)
