#!/bin/sh
# Haein runs attempt 00000000-0000-0000-0000-000000000001 of job 00000000-0000-0000-0000-000000000002. This process only starts the one that looks after it.
exec /usr/bin/env python3 -I -S -E /share/agent/x/agent.py /share/attempts/1
