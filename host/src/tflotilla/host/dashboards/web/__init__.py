"""The live page: its server here, what the browser loads in `static`."""
