"""The published experiment over Kafka: runs, analysis, report. The command line calls run_reference."""

from selfheal.experiment.reference import run_reference

__all__ = ["run_reference"]
