"""Images in, arrays out: CIFAR-10, the synthetic set, splits and minibatches."""
