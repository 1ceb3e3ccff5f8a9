"""A Django signal that emits: whatever saves a run that failed, in a view, a command or the admin, tells of it, in the same
transaction.

DATABASE_NAME=app DATABASE_USER=app DATABASE_HOST=localhost DATABASE_PORT=5432 python emit_django.py run-1
"""

import json
import os
import sys

import django
from django.conf import settings

settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            **{key: os.environ.get(f"DATABASE_{key}", "") for key in ("NAME", "USER", "HOST", "PORT")},
        }
    },
)
django.setup()

from django.db import connection, models, transaction  # noqa: E402, Django must be set up
from django.db.models.signals import post_save  # noqa: E402
from django.dispatch import receiver  # noqa: E402


class Run(models.Model):
    id = models.TextField(primary_key=True)
    status = models.TextField()

    class Meta:
        app_label = "example"
        db_table = "run"
        managed = False


@receiver(post_save, sender=Run)
def tell(sender, instance, **_):
    if instance.status == "failed":
        # The same connection, and so the same transaction: no on_commit, which a crash would skip.
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT klaxon.notify_event(%s, %s::jsonb)", ["run.failed", json.dumps({"run_id": instance.pk})]
            )


run_id = sys.argv[1]

with transaction.atomic():
    Run.objects.create(id=run_id, status="failed")
    if run_id.endswith("broken"):
        raise SystemExit("something else went wrong: nobody is told anything")
