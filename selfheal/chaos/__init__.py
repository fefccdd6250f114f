"""The nemesis: breaks a running pipeline by a schedule drawn from a seed, then has it audited."""
