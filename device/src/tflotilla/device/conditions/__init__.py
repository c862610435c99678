"""The board's state around a measurement: read, kept while runs are timed, and judged.

`readings`, `processes`, `memory`, `clocks` and `identity` read files; `watch` calls them at the right moments;
`verdict` decides, purely. Every reader takes the root folder, so that trees of boards' files prove them, and none
raises for what a file holds: what can't be read is None, and `verdict` says so.
"""
