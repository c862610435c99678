"""Every form a benchmark's result takes: `forms` is the door; `words` spell, the others put the words in their places.

Rules: the same run gives the same bytes; what a board wrote is shown and never obeyed, whatever the form obeys (HTML,
terminal escapes, Markdown, formulas, XML); no figure stands without the verdict and what the answers were worth. What
it does NOT do: measure, compare, or write files.
"""
