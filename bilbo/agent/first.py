"""Python's own library first, whatever lies in the home folder that a program runs in.

With `python3 -c` the current folder comes before everything, and PYTHONPATH before the library: a
`json.py` that somebody works on would be run in place of Python's.
"""

# Put before a program that is given to `python3 -c`. What else the Python has stays reachable.
LIBRARY_FIRST = """import sys
library = [
    each
    for each in sys.path
    if each.startswith((sys.base_prefix, sys.base_exec_prefix)) and not each.endswith("-packages")
]
sys.path[:] = library + [each for each in sys.path if each and each not in library]
"""
