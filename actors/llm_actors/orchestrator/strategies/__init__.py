"""The strategies that use several models for one request. The module `several` lists them; its `carried_out` is the
entry point.
"""
