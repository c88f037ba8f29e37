"""The command line: arguments to settings, results to text, errors to exit codes. No logic."""
