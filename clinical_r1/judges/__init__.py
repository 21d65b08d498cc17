"""A model counts the process measures where no exact verdict exists. Every verdict is cached, and the judges are
calibrated on the clinic, where the truth is known.
"""
