"""The agent: it runs the current bundle on a board and reports over MQTT."""

__version__ = "0.1.0"
