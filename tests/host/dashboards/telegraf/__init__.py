"""What Telegraf is given."""
