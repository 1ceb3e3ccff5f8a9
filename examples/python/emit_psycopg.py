"""An event in the transaction of the row that it is about, with psycopg: both are committed, or neither.

DATABASE_URL=postgresql://app@localhost/app python emit_psycopg.py run-1
"""

import os
import sys

import psycopg
from psycopg.types.json import Jsonb

run_id = sys.argv[1]

with psycopg.connect(os.environ["DATABASE_URL"]) as connection:  # commits at its end, or rolls back
    connection.execute("INSERT INTO run (id, status) VALUES (%s, 'failed')", [run_id])
    connection.execute(
        "SELECT klaxon.notify_event(%s, %s)",
        ["run.failed", Jsonb({"run_id": run_id, "branch": "main", "failed_tests": 3})],
    )
    if run_id.endswith("broken"):
        raise SystemExit("something else went wrong: nobody is told anything")
