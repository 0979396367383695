"""Steps of the journal's schema, one file each, named after the schema that it leads to."""
