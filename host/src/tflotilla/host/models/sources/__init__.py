"""One file per source format, found by name, imported only when chosen."""
