"""A job's events can only grow: the database itself refuses anything else."""

from django.db import migrations

FORWARD = """
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON jobs_event
    FOR EACH ROW EXECUTE FUNCTION haein_append_only();
"""


class Migration(migrations.Migration):
    dependencies = [("jobs", "0001_initial"), ("tenants", "0002_append_only")]
    operations = [migrations.RunSQL(FORWARD, "DROP TRIGGER append_only ON jobs_event;")]
