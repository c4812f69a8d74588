"""A load generator for a running server: manifests played as live streams, many at a time, at the pace of speech."""
