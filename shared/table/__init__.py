"""A table of somebody else's: how its cells become the numbers that go over the wire, the same in training and after."""
