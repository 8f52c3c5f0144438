"""Looking at transformations, states and schedules."""
