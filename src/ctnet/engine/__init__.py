"""Training: the loop, its state on disk, and its reports and logs."""
