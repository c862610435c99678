"""Virtual boards and a broker on this machine: what the demo and the tests run on."""
