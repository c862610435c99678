"""What travels to a board: files, the differences between them, and what is kept for the next board."""
