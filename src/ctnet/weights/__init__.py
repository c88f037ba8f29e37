"""Files of weights, and loading them into networks."""
