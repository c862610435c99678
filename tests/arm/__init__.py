"""The whole way on boards of other architectures: emulated, and otherwise what a Raspberry Pi has."""
