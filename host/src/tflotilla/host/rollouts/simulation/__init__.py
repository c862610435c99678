"""A fleet and a rollout that are only reckoned."""
