"""One module for each sub-command of `asr`: `register` adds its arguments, its `run` returns the exit code."""
