"""WeightAverage: the exponential average of a network's arrays over its updates."""

from dataclasses import dataclass, field

import numpy as np

BLOCK = 32_768  # numbers worked on at once, in the second-level cache


@dataclass
class WeightAverage:
    """`average <- average + share * (theta - average)` with `share = (1 - decay) / (1 - decay^t)`, t counting from 1.

    The same as Adam's bias-corrected moments: the mean of all theta so far, with weights that fall by
    `decay` from one update to the one before (Polyak and Juditsky 1992 with a memory). The first update
    takes theta as it is, so the initial weights leave no trace.
    """

    decay: float
    updates: int = 0  # averaged so far
    state: dict[str, np.ndarray] = field(default_factory=dict)  # of the averaged network, by name

    def update(self, state: dict[str, np.ndarray]) -> None:
        """Take in the arrays of a network after one more update."""
        self.updates += 1
        if not self.state:
            self.state = {name: array.copy(order="K") for name, array in state.items()}
            return
        share = (1 - self.decay) / (1 - self.decay**self.updates)
        for name, array in state.items():
            average, theta = (values.ravel(order="K") for values in (self.state[name], array))
            for start in range(0, len(theta), BLOCK):
                part = slice(start, start + BLOCK)
                average[part] += share * (theta[part] - average[part])
