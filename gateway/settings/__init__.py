"""The configuration: one YAML file to frozen, typed settings; errors with file:line:column."""

from gateway.settings.load import load_settings
from gateway.settings.model import Settings
from gateway.settings.problems import Problem, SettingsError

__all__ = ["Problem", "Settings", "SettingsError", "load_settings"]
