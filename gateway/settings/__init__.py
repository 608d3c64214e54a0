"""The configuration: one YAML file to frozen, typed settings; errors with file:line:column."""
