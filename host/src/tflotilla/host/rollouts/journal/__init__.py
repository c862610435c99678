"""Where a rollout's story is kept, and how it is saved from damage."""
