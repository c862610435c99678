"""Locked packages and tools in environments of their own."""
