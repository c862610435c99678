"""Published figures of the field, reproduced by this project's own commands, one case a file."""
