"""A page on this machine: a text is edited, and its diagnostics and pictures follow at once."""
