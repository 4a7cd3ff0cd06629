"""One epoch and one evaluation of the 3-layer BN network in PyTorch: a whole process to measure."""

import torch

from tests.benchmarks.contestants import TorchEagerAllThreads
from tests.benchmarks.networks import UPDATES, races

if __name__ == "__main__":
    contestant = TorchEagerAllThreads(races()[0])
    contestant.updates(UPDATES)
    with torch.no_grad():
        contestant._network.eval()(contestant._X)
