"""Where people see the fleet."""
