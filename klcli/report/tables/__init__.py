"""Tables: stored records gathered into rows."""
