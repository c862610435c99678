"""What boards report over MQTT, folded into a view of the fleet."""
