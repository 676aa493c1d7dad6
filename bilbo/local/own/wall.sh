#!/bin/sh
# A stand-in host's wall: it keeps in the host's folder what people in terminals would see.
host=${0%/*/*}
mkdir -p "$host/var/log"
if [ $# -gt 0 ]; then echo "$*"; else cat; fi >>"$host/var/log/wall"
