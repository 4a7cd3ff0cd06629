"""Slot: room for one piece of work in the shared memory, and how two processes agree who does it."""

from typing import Any

SLOTS = 2  # pieces of work that may be under way at once: the next minibatch, and what the update itself needs
LETTER = 1 << 16  # bytes of a command, and of what it returns

Semaphore = Any  # multiprocessing's have no public type


class Slot:
    """A letter and two semaphores.

    `offered` counts the parts of the work that have not been begun, so that exactly one of the two processes gets
    each; `done` counts the parts that the other process has completed. The semaphores also order the accesses to
    the shared memory, which a flag in it does not do on every processor.
    """

    def __init__(self, memory: memoryview, offered: Semaphore, done: Semaphore) -> None:
        """Take a part of the memory, LETTER bytes long."""
        self.offered, self.done = offered, done
        self.is_free = True  # known to the parent alone
        self._length, self._part, self._letter = memory[:8].cast("q"), memory[8:16].cast("q"), memory[16:]

    def write(self, letter: bytes) -> None:
        """Put a command into the slot, or what it has returned. Raises ValueError where it is too long."""
        self._letter[: len(letter)] = letter
        self._length[0], self._part[0] = len(letter), 0

    def next_part(self) -> int:
        """Return which part the other process begins, of work in parts: it counts from 0, the parent from the end."""
        self._part[0] += 1
        return self._part[0] - 1

    def write_failure(self, why: str) -> None:
        self.write(why.encode()[: LETTER // 2])
        self._length[0] *= -1

    @property
    def has_failed(self) -> bool:
        return bool(self._length[0] < 0)

    def read(self) -> bytes:
        return bytes(self._letter[: abs(self._length[0])])


def slots(raw: Any, semaphores: list[tuple[Semaphore, Semaphore]]) -> list[Slot]:
    """Return the slots at the beginning of the shared memory."""
    memory = memoryview(raw).cast("B")
    return [Slot(memory[i * LETTER : (i + 1) * LETTER], *pair) for i, pair in enumerate(semaphores)]
