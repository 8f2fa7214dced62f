"""The form: a configuration, typed, judged, estimated, and taken along."""
