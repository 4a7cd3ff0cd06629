"""What the other process does: it begins what is offered until it is killed or its parent ends."""

import importlib
import marshal
import multiprocessing
import pickle
import signal
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from klcli.second_core.memory import Memory, unpickled
from klcli.second_core.slot import Semaphore, Slot, slots
from klcli.termination import SIGNALS

AWAKE_SECONDS = 0.002  # of asking for work without a pause: several updates of a small network
PAUSES = (0.0005, 0.02)  # seconds between two looks after that, and after a second with nothing to do


def serve(raw: Any, semaphores: list[tuple[Semaphore, Semaphore]]) -> None:
    """Do what is offered in the slots of the shared memory."""
    for signum in SIGNALS:  # they reach a whole terminal; the parent decides, and kills this
        signal.signal(signum, signal.SIG_IGN)
    memory, own, parent = Memory(raw), slots(raw, semaphores), multiprocessing.parent_process()
    last = time.monotonic()
    with np.errstate(all="ignore"):  # a diverging network is noticed by its loss, in the parent
        while True:
            # What is not urgent is offered behind what is, so that looking here first finds both in their order.
            begun = [slot for slot in reversed(own) if slot.offered.acquire(False)]
            for slot in reversed(begun):
                _do(slot, memory)
                last = time.monotonic()
            if (idle := time.monotonic() - last) > AWAKE_SECONDS:
                if parent is None or not parent.is_alive():
                    return
                time.sleep(PAUSES[idle > 1])


def _do(slot: Slot, memory: Memory) -> None:
    try:
        part = slot.next_part()
        if slot.has_failed:
            return  # in a part before this one, and what it was is no longer there
        module, name, values, parts = marshal.loads(slot.read())
        arguments = [_decoded(value, memory) for value in values]
        if parts:
            arguments.insert(-1, (part, parts))
        value = _function(module, name)(*arguments)
        if not parts:  # the next part needs the command again
            slot.write(b"" if value is None else pickle.dumps(value))
    except BaseException as error:  # whatever it is, the parent does the work itself and meets it there, or says it
        slot.write_failure(repr(error))
    finally:
        slot.done.release()


def _decoded(value: Any, memory: Memory) -> Any:
    if isinstance(value, tuple):
        return memory.found(value)
    return unpickled(value, memory.found) if isinstance(value, bytes) else value


@lru_cache
def _function(module: str, name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function
