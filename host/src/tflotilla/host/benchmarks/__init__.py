"""Ask boards for benchmarks over MQTT and put the answers side by side."""
