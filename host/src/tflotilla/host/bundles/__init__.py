"""A signed, content-addressed release of a model: build, goldens, signatures, archives."""
