"""The training of one network, or of a stack in lockstep."""
