"""Speed of inference, training and loading, compared with the limit of the machine and with published figures."""
