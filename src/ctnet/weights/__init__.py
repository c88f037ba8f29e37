"""Files of weights: ctnet's own, and fitting tensors to networks."""
