"""Partner: the other process, as this one sees it."""

import marshal
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from klcli.errors import KlcliError
from klcli.second_core.memory import Handle, Memory, pickled
from klcli.second_core.serving import serve
from klcli.second_core.slot import LETTER, SLOTS, Slot, slots
from klcli.termination import kept_from_children

LENT = 4 << 20  # bytes of an array that is copied for the other process: a larger copy takes as long as the work
PAGE = 4096  # bytes: arrays begin at one, so that they share no line of the cache
ROOMS = 1000  # for copies that are remembered: making one takes as long as filling it
LOOKS = 20_000  # of who waits for the other process, a few milliseconds, before it looks after it
PAUSE = 0.01  # seconds between two looks after that: a core that is not there is not to be waited for at full speed

Room = tuple[np.ndarray, Handle | None, int]


class PartnerLost(KlcliError):
    """The other process has ended in the middle of a change to an array."""


class Partner:
    """The other process, and the memory that both share."""

    def __init__(self, size: int) -> None:
        """Start it; it is ready after half a second, and until then all is done here. Raises OSError."""
        context = multiprocessing.get_context("spawn")  # a fork would inherit locks in whatever state they are
        raw = context.RawArray("b", SLOTS * LETTER + size + PAGE)
        with kept_from_children():  # the process that removes lost semaphores starts here
            semaphores = [(context.Semaphore(0), context.Semaphore(0)) for _ in range(SLOTS)]
        self._memory, self._slots = Memory(raw), slots(raw, semaphores)
        self._end = SLOTS * LETTER  # of the arrays handed out so far
        self._borrowed = self._end  # behind them: copies for the work under way
        self._rooms: dict[tuple[Any, ...], Room] = {}  # an update borrows what the one before has borrowed
        self._told: Begun | None = None  # the notification, whose end is not waited for
        self._held: Begun | None = None  # offered behind the next
        self._process = context.Process(target=serve, args=(raw, semaphores), name="second core", daemon=True)
        self._start()

    def _start(self) -> None:
        try:
            with kept_from_children():  # until the process ignores the signals of the terminal by itself
                self._process.start()
        except KeyboardInterrupt:  # delayed until the signals were unblocked; nothing else would end the process
            self.close()
            raise

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def is_alive(self) -> bool:
        """Return whether the process is there; what was stopped together with this one goes on with it."""
        if hasattr(signal, "SIGCONT") and self._process.is_alive():
            os.kill(self._process.pid or 0, signal.SIGCONT)
        return self._process.is_alive()

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray | None:
        """Return a new array of the shared memory, or None where there is no room."""
        try:
            array = self._memory.array(offset := self._first_free(), shape, dtype)
        except (TypeError, ValueError):
            return None
        self._end = self._borrowed = _page_after(offset + array.nbytes)
        return array

    def begin(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        out: np.ndarray | None = None,
        *,
        in_place: bool = False,
        parts: int = 0,
    ) -> "Begun | None":
        """Offer a piece of work, or return None where too much is under way or the memory has no room for it.

        One in parts is offered behind the next. Every Begun must be asked for its end: until then its slot is taken.
        """
        if self._told is not None and self._told.slot.done.acquire(False):
            self._told.slot.is_free, self._told = True, None
        free = [slot for slot in self._slots if slot.is_free]
        if not free:
            return None
        self._borrowed = self._first_free()
        slot, shared_out = free[-1 if parts else 0], out  # the other process does what is in the first one first
        try:
            values = [self._encoded(value) for value in arguments]
            if out is not None:
                handle = self._memory.handle(out)
                if handle is None:
                    if in_place or parts:
                        return None  # it holds something that the other process does not know
                    shared_out, handle = self._borrow(out)
                values.append(handle)
            slot.write(marshal.dumps((function.__module__, function.__qualname__, values, parts)))
        except (MemoryError, ValueError):
            return None
        slot.is_free = False
        begun = Begun(self, slot, out, shared_out, in_place=in_place, parts=parts)
        if not parts:
            slot.offered.release()
        if self._held is not None:
            for _ in range(self._held.parts):
                self._held.slot.offered.release()
        self._held = begun if parts else None
        return begun

    def tell(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> bool:
        """Send a notification and return whether that was possible. Its end is not waited for; its arrays stay."""
        if self._told is not None:
            return False
        self._told = self.begin(function, arguments)
        self._end = self._borrowed
        return self._told is not None

    def _first_free(self) -> int:
        """Return where the memory is free: behind the copies for the work under way."""
        return self._end if all(slot.is_free for slot in self._slots) else self._borrowed

    def drops(self, begun: "Begun") -> bool:
        """Return whether nothing has followed, so that it was never offered; nor will it be."""
        if self._held is not begun:
            return False
        self._held, begun.slot.is_free = None, True
        return True

    def close(self) -> None:
        """End the process: it has nothing to lose."""
        self._process.kill()
        self._process.join()

    def _encoded(self, value: Any) -> Any:
        """Return what marshal can write. Raises MemoryError where a copy has no room."""
        if isinstance(value, np.ndarray):
            handle = self._memory.handle(value)
            if handle is None and value.nbytes > LENT:
                raise MemoryError
            return handle or self._lent(value)
        if value is None or type(value) in (int, float, str):  # np.float64 is a float too, but not to marshal
            return value
        return pickled(value, lambda array: self._memory.handle(array) or self._lent(array))

    def _lent(self, array: np.ndarray) -> Handle | None:
        copy, handle = self._borrow(array)
        np.copyto(copy, array)
        return handle

    def _borrow(self, array: np.ndarray) -> tuple[np.ndarray, Handle | None]:
        """Return room for an array of that shape, and its handle. Raises MemoryError where there is none."""
        what = self._borrowed, array.shape, array.strides, array.dtype
        if what not in self._rooms:
            if len(self._rooms) == ROOMS:
                self._rooms.clear()
            self._rooms[what] = self._new_room(*what)
        room, handle, self._borrowed = self._rooms[what]
        return room, handle

    def _new_room(self, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype) -> Room:
        """Return an array, its handle, and where the next may begin.

        Its axes lie in the order of the strides: another order is another product for BLAS.
        """
        axes = sorted(range(len(shape)), key=lambda axis: -strides[axis])
        try:
            room = self._memory.array(offset, tuple(shape[axis] for axis in axes), dtype)
        except (TypeError, ValueError):
            raise MemoryError from None
        room = room.transpose(np.argsort(axes)) if len(shape) > 1 else room
        return room, self._memory.handle(room), _page_after(offset + room.nbytes)


class Begun:
    """A piece of work that was offered to the other process."""

    def __init__(
        self,
        partner: Partner,
        slot: Slot,
        out: np.ndarray | None,
        shared_out: np.ndarray | None,
        *,
        in_place: bool,
        parts: int,
    ) -> None:
        """`shared_out` is `out`, or stands for it in the shared memory."""
        self.partner, self.slot, self.parts, self._in_place = partner, slot, parts, in_place
        self._out, self._shared_out = out, shared_out
        self.value: Any = None  # what the function has returned, once it has ended
        self.why_lost = ""  # where it has failed, or the other process has ended

    def finish(self) -> bool:
        """Return whether the other process has done it; wait where it is at it, take back what it has not begun."""
        assert not self.parts, "one in parts is asked what is left"
        if self.takes_back():
            self.slot.is_free = True
            return False
        if not self._is_done(1):
            return False
        if letter := self.slot.read():
            self.value = pickle.loads(letter)
        if self._out is not None and self._shared_out is not None and self._shared_out is not self._out:
            np.copyto(self._out, self._shared_out)
        return True

    def left(self) -> Iterator[tuple[int, int]]:
        """Yield the parts that the other process has not begun, the last one first, for this process to do.

        If the other process is lost meanwhile, its parts follow. Call this once, and iterate to the end.
        """
        if self.partner.drops(self):
            yield 0, 1
            return
        theirs = self.parts
        while theirs and self.takes_back():
            theirs -= 1
            yield theirs, self.parts
        if not self._is_done(theirs):
            yield from ((part, self.parts) for part in range(theirs))

    def takes_back(self) -> bool:
        """Withdraw the work, or a part of it; return whether that was possible, because it had not been begun."""
        return bool(self.slot.offered.acquire(False))

    def _is_done(self, times: int) -> bool:
        """Wait for the end of what the other process has begun; return whether it has come to one."""
        looks = 0
        for _ in range(times):
            while not self.slot.done.acquire(looks >= LOOKS, PAUSE):
                looks += 1
                if looks >= LOOKS and not self.partner.is_alive():
                    self.why_lost = "was it killed?"
                    return False
        self.slot.is_free = True
        if self.slot.has_failed:
            self.why_lost = self.slot.read().decode(errors="replace")
        return not self.why_lost

    def require_that_it_can_be_done_again(self) -> None:
        """Raise PartnerLost where what is lost has left an array half changed."""
        if self._in_place:
            raise PartnerLost(f"the process on the second core ended in the middle of an update ({self.why_lost})")


def _page_after(offset: int) -> int:
    return -(-offset // PAGE) * PAGE
