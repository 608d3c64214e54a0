"""Recipes that train the models which ship with the gateway. Not part of an installation."""
