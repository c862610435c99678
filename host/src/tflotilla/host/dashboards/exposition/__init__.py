"""What a fleet says, as Prometheus and whoever reads its format take it: counters, gauges and histograms of few labels.

`catalogue` names every metric, `sums` adds windows up, `rendering` makes figures of both; all of it is pure. Serving
them is `bridges.prometheus`.
"""
