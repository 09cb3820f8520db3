"""The ways to answer one request with several models. `dispatch` chooses among them."""
