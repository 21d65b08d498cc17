"""What `./reproduce.sh` calls: the notebooks as stages, the record of a run, and the pages made of its tables. Results are kept
while nothing they came from has changed.
"""
