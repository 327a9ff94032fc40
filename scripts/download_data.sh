#!/usr/bin/env bash
# Runs scripts/data/download.sh under its former path.
exec bash "$(dirname "$0")/data/download.sh" "$@"
