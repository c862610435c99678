"""What follows in a rollout: all of it pure."""
