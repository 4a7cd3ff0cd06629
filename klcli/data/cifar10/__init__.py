"""CIFAR-10: found on the machine or fetched, read from either layout, prepared for the next process."""
