"""Accelerators: loaded for the first time in a process that may crash, compared with the CPU, then trusted."""
