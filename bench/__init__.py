"""Benchmarks: every figure is a median with its ceiling measured in the same run. `make bench` runs them all."""

from selfheal.process import one_thread

one_thread()  # as services do; before NumPy is loaded
