"""The strategies that use several models for one request. `dispatch` is the entry point, `several` lists them."""
