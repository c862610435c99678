"""One published figure, or a few that belong together, per file; see `catalogue`."""
