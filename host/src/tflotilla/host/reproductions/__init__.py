"""Published figures of the field, reproduced with this project's own commands: one case a file in `cases/`."""
