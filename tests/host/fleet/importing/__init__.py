"""Boards that stand elsewhere."""
