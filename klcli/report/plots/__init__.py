"""Pictures: what is gathered from stored records is a plain value, drawing it is a second step."""
