"""RunRecorder: the states of one run in the database, from `running` to the one in which it ends."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from klcli.errors import StoreError
from klcli.procedures.signals import Interrupted
from klcli.store.runs import divergence
from klcli.store.store import Store
from klcli.training.result import TrainResult


class RunRecorder:
    """One run of a store while it is trained."""

    def __init__(self, store: Store, run_id: int, recorded: int = 0, seconds: float = 0.0) -> None:
        """Start the clock of the run, or continue it after so many recorded evaluations and seconds."""
        self._store = store
        self._run_id = run_id
        self._started = time.perf_counter() - seconds
        self._result: TrainResult | None = None
        self._recorded = recorded

    def on_evaluation(self, result: TrainResult) -> None:
        """Commit the newest metrics."""
        self._result = result
        for metrics in result.epochs[self._recorded :]:
            self._store.runs.record_epoch(self._run_id, metrics, result)
        self._recorded = len(result.epochs)

    def complete(self, result: TrainResult) -> None:
        """Keep the network and end the run, complete or diverged."""
        self._result = result
        if result.diverged_at is None:
            self._finish("complete")
        else:
            self._finish("diverged", divergence(result))

    @contextmanager
    def ending_in_a_state(self) -> Iterator[None]:
        """Mark the run interrupted or failed where the block raises; what was recorded stays."""
        try:
            yield
        except (Interrupted, KeyboardInterrupt) as error:
            self._finish("interrupted", str(error) or "interrupted")
            raise
        except (BrokenPipeError, SystemExit):  # `klcli train 2>&1 | head`
            self._finish("interrupted", "the output pipe was closed")
            raise
        except Exception as error:
            # Where the store itself is what failed, the next opening of the database marks the run.
            with suppress(StoreError):
                self._finish("failed", f"{type(error).__name__}: {error}")
            raise

    def _finish(self, state: str, error: str | None = None) -> None:
        self._store.runs.finish(self._run_id, state, self._result, time.perf_counter() - self._started, error)
