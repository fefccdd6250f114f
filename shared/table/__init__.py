"""A table of somebody else's: how its cells become the numbers on the wire, in training and after alike."""
