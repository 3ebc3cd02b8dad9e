"""The demo: a whole federation on one machine, every part a process of its own."""
