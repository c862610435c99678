"""What Home Assistant is told, held against its own schemas and a real instance."""
