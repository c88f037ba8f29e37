"""The processes of a training run: their ranks, what they exchange, how they start and how they fail."""
