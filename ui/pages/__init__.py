"""One page each: `show()` draws it, from what `ui.queries` reads."""
