"""Alarms: rules over what boards report, and what follows when one of them is broken.

    rules       alarms.toml as values, and every mistake in it as one line
    recent      what each board did in the last minutes, in slots that are forgotten
    judging     one rule at one board, now: broken, kept, or not to be told
    stepping    pending → firing → resolved
    watching    the three together, fed with what arrives; what is to be published
    webhook     the one that speaks HTTP

A rule is broken by evidence and kept by evidence: a board that never spoke breaks only a rule that says so, and while
the broker is away nothing fires and nothing resolves.
"""
