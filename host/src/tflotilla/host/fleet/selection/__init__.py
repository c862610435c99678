"""Which boards an expression picks."""
