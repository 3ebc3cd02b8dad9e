"""From a source (CSV, arrays, images) to the features of one device, or of many."""
