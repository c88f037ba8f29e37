"""How fast inference, training and loading are here, beside what the machine could do and what others reached."""
