"""The agent on a board: made ready, started, upgraded, looked at."""
