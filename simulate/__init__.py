"""`floe simulate`: a federation of many devices in one process, with the rounds and the training of the real one."""
