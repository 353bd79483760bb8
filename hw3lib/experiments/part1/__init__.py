"""Part 1: variational autoencoders."""
