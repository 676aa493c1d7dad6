#!/bin/sh
# A stand-in host's chown: all users of a host are the computer's one, who owns its files already.
exit 0
