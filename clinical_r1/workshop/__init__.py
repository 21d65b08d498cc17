"""Seven exercises for a workshop of 90 minutes, and an extra one, offline. Each has a check that says what is wrong and why."""
