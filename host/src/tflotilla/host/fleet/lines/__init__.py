"""Lines to boards: SSH, whose key is believed, and how fast bytes may go."""
