"""What is done to training audio between epochs: each module one distortion, on any device.

Every random choice comes from a generator that the caller seeds, so a batch is a function of its place in the run.
"""
