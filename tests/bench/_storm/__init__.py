"""The parts of ``bin/bench storm``, each in a process of its own: provider, daemon or embedding program, clients."""
