"""Images in, arrays out: CIFAR-10, the synthetic stand-in, splits and minibatches."""
