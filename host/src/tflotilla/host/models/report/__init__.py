"""Everything known about the variants of a model, on one page: `contents` (values), `collect`, `pictures`, `pages`."""
