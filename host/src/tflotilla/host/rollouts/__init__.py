"""A bundle to many boards, in waves: plan, engine, gates, journal, and who carries it out."""
