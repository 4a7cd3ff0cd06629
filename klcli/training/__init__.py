"""One network, or a stack of them in lockstep, update by update."""
