"""What two or more of Floe's processes share: the wire, the keys, the files, the configuration."""

__version__ = "0.1.0"
