"""The version of the package: its one source, for packaging, ``__version__`` and the user agent."""

VERSION = "0.1.0"
