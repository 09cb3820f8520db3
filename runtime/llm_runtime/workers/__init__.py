"""A daemon of several processes: a parent that starts, restarts and stops them, and workers that serve on one port.

``parent`` keeps the listening sockets and the workers; it serves nothing and runs no actor. A worker is a daemon like
any other that also talks to the parent (``link``) and to the other workers (``siblings``), over unix sockets in a
folder that only this user can enter. Why it is so: docs/decisions/0015-workers.md.
"""
