"""What all bridges have in common, and how they are run."""
