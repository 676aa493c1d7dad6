#!/bin/sh
# What a stand-in host does not have: the program of this name would change the machine underneath.
echo "${0##*/}: a stand-in host has none, and this machine's would change this machine" >&2
exit 1
