"""Seven exercises for a workshop of 90 minutes, offline. Each has a check that says what is wrong and why."""
