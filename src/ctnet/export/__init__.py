"""Networks as files for other runtimes, proven against torch, and used like any weights."""
