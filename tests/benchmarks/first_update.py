"""`klcli train --bn` up to its first update: prints the time after it and exits."""

import os
import time

from klcli.cli.app import main
from klcli.training.trainer import Training

_update = Training.update


def _first_update(training: Training) -> None:
    _update(training)
    print(time.time(), flush=True)
    os._exit(0)


if __name__ == "__main__":
    Training.update = _first_update  # type: ignore[method-assign]
    main(["train", "--bn", "--quiet"])
