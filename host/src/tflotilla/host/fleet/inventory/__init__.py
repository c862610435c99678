"""What a fleet is: fleet.toml, its boards and groups, and what is known of them."""
