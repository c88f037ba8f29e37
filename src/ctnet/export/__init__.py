"""Networks as files for other runtimes, verified against torch, and usable like any weights."""
