"""What Home Assistant is told of boards, by MQTT discovery: decisions only; `bridges.home_assistant` carries it out."""
