"""Boards with addresses of their own on this machine, and links that are slow, lossy, cut or reset."""
