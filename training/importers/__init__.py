"""Corpora as they are published, read into one kind of record; `training.prepare` checks it and writes a manifest."""
