"""Locked Python packages: those that are shipped to boards, and those of tools that can't live beside TensorFlow."""
