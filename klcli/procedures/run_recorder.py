"""Run recorder: records a run or a study from the state `running` to its final state."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from klcli.errors import StoreError
from klcli.procedures.signals import Interrupted
from klcli.second_core.partner import PartnerLost
from klcli.store.runs import end_of
from klcli.store.store import Store
from klcli.studies.execution import WorkersLost
from klcli.training.result import EpochMetrics, TrainResult


@contextmanager
def ending_in_a_state(end: Callable[[str, str], None], how_to_continue: Callable[[], str]) -> Iterator[None]:
    """Call `end` with the state and the reason if the block raises; earlier records stay.

    Interrupted and WorkersLost are raised again with the command that continues.
    """
    try:
        yield
    except Interrupted as interruption:
        end("interrupted", str(interruption))
        raise interruption.adding(how_to_continue()) from None
    except (SystemExit, KeyboardInterrupt):  # raised by a callback of a program that imports klcli
        end("interrupted", "interrupted")
        raise
    except Exception as error:
        # If the store itself failed, the next opening of the database marks the runs that did not end.
        with suppress(StoreError):
            end("failed", f"{type(error).__name__}: {error}")
        if isinstance(error, PartnerLost | WorkersLost):
            raise type(error)(f"{error}: {how_to_continue()}") from None
        raise


class RunRecorder:
    """One run of a store during its training, from the start or resumed."""

    def __init__(self, store: Store, run_id: int, earlier: Sequence[EpochMetrics] = ()) -> None:
        self._store = store
        self._run_id = run_id
        self._started = time.perf_counter() - sum(metrics.seconds for metrics in earlier)
        self._result: TrainResult | None = None
        self._recorded = len(earlier)

    def on_evaluation(self, result: TrainResult) -> None:
        self._result = result
        for metrics in result.epochs[self._recorded :]:
            self._store.runs.record_epoch(self._run_id, metrics, result)
        self._recorded = len(result.epochs)

    def complete(self, result: TrainResult) -> None:
        """Store the network and end the run, complete or diverged."""
        self._result = result
        self.end(*end_of(result))

    def end(self, state: str, error: str | None = None) -> None:
        self._store.runs.finish(self._run_id, state, self._result, time.perf_counter() - self._started, error)
