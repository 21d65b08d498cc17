"""What a run's tables say, as markdown: frames in, a heading and sentences out, every number from the frame. `wording` writes
differences, intervals, p values and names for all of them; `claims` holds the rule for what counts as found.
"""
