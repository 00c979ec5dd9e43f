"""Every file we write or read, each with a schema version."""
