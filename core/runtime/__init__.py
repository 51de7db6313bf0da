"""The ground floor every command stands on: errors, logging, progress, devices, shards, outputs, provenance, settings, methods."""
