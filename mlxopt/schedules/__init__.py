"""Schedules: functions from a count of updates to a value."""
