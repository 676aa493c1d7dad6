"""Turns results into text, Markdown or JSON. Pure: returns strings and documents, no I/O."""
