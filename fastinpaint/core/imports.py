"Imports that take seconds"
import gc
import sys
from contextlib import contextmanager


@contextmanager
def lasting():
    """A context of imports whose modules the garbage collector never looks through, nor at the end.

    They live as long as the process: without it torch and what follows take a third less. Where torch has
    been imported before, it changes nothing."""
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try: yield
    finally:
        gc.freeze()
        gc.enable()
