"""A daemon of several processes: a parent that starts, restarts and stops them, and workers that serve on one port.

``parent`` owns the listening sockets and the workers; it serves no requests and runs no actor. A worker is an
ordinary daemon that also talks to the parent (``link``) and to the other workers (``siblings``), over unix sockets in
a folder that only this user can enter. The reasons are in docs/decisions/0015-workers.md.
"""
