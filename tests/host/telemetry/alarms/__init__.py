"""Rules, what they see, and what follows."""
