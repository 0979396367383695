"""Floor 3: four agents wish, one coordinator joins, one projection limits, one planner orders."""
