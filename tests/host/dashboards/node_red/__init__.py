"""What Node-RED is given."""
