"""`selfheal train --csv`: from a table to a bundle."""
