"""CIFAR-10: find it on the machine or download it, read either layout, cache it for later processes."""
