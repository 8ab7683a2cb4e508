"""The demo: the main job end to end, with kills half-way, and a count that must add up."""
