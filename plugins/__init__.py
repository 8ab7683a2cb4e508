"""First-party extras written only against the public seams."""
