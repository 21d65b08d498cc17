"""Can the numbers be trusted? Printed numbers, rewards, parsers and reasoning are checked here (notebooks 02, 04 and 06)."""
