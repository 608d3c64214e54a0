"""Graphs: networks that bring their own architecture, each run by the library that made its format."""
