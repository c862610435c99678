"""The boards: inventory, selectors, SSH, environments, bootstrap and push."""
