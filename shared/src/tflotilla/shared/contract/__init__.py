"""The words host and board exchange. Stdlib only, so that nothing has to be installed to read them."""
