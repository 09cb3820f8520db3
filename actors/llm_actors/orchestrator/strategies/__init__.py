"""The ways to answer one request with several models. `dispatch` is the way in, `several` has the list of them."""
