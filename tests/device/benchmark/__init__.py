"""The process that measures one cell."""
