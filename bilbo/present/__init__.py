"""Everything that becomes text, Markdown or JSON. Pure: strings and documents out, no I/O."""
