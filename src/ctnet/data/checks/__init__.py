"""What is wrong with a data set: the rules, what they find, and the repair of it."""
