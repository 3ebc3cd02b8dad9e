"""Mosquitto for Floe: configuration, access control and limits rendered from Config, and running it."""
