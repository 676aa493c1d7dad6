"""Puts the standard library first on Python's path, before the folder that a program runs in.

With `python3 -c` the current folder precedes everything, and PYTHONPATH precedes the library: a
user's `json.py` would run instead of Python's.
"""

# Goes before a program for `python3 -c`. Everything else on the path stays importable.
LIBRARY_FIRST = """import sys
library = [
    each
    for each in sys.path
    if each.startswith((sys.base_prefix, sys.base_exec_prefix)) and not each.endswith("-packages")
]
sys.path[:] = library + [each for each in sys.path if each and each not in library]
"""
