"""One room a broker: each speaks to its broker only, the core owns every guarantee."""
