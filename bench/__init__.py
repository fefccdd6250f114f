"""Benchmarks: every figure is a median with its ceiling measured in the same run. `make bench` runs them all."""
