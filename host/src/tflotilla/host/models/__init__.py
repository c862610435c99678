"""From a source model to a TFLite file one dares to ship: convert, inspect, evaluate, decide compatibility."""
