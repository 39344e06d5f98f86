"""The audit can only grow: the database itself refuses anything else."""

from django.db import migrations

FORWARD = """
CREATE FUNCTION haein_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON tenants_auditentry
    FOR EACH ROW EXECUTE FUNCTION haein_append_only();
"""
BACKWARD = "DROP TRIGGER append_only ON tenants_auditentry; DROP FUNCTION haein_append_only();"


class Migration(migrations.Migration):
    dependencies = [("tenants", "0001_initial")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
