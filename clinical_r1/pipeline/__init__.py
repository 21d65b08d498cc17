"""What `./reproduce.sh` calls: the notebooks as stages, the record of a run, and what is said of its numbers. Results are
kept while nothing they came from has changed.
"""
