"""Tables, pictures and pages from stored records."""
