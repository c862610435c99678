"""What the pages that people open have in common: how templates are filled in, and how pages look."""
