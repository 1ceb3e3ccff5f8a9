//! Versions of the extension that there are not, made of the present one: an older minor, newer ones, and one that was
//! made carelessly. What differs is what releases change: columns, functions, indexes, tables, the type of a result.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::postgres::Postgres;

/// The minor before the present one.
pub const OLDER: &str = "0.0.9";
/// The present one.
pub const PRESENT: &str = env!("CARGO_PKG_VERSION");
/// The minor after it.
pub const NEWER: &str = "0.2.0";
/// The one after that.
pub const MUCH_NEWER: &str = "0.3.0";
/// Another major.
pub const MAJOR: &str = "1.0.0";
/// As [`NEWER`], whose column stands elsewhere in the script than where the update puts it.
pub const CARELESS: &str = "0.2.9";

/// What the present version has and the older one has not, and how the older one gets it.
const SINCE_OLDER: [(&str, &str); 5] = [
    (
        "    updated_at    timestamptz NOT NULL DEFAULT now(),\n    CONSTRAINT agent_key",
        "    CONSTRAINT agent_key",
    ),
    ("COMMENT ON COLUMN klaxon.agent.updated_at IS 'When the row was last changed';\n", ""),
    (
        "CREATE TRIGGER touch BEFORE UPDATE ON klaxon.agent FOR EACH ROW EXECUTE FUNCTION klaxon.touch();\n",
        "",
    ),
    ("IS 'How many messages of one''s inbox are unread'", "IS 'Unread messages'"),
    ("CREATE INDEX inbox_unread_idx ON klaxon.inbox (principal) WHERE read_at IS NULL;\n", ""),
];
const FROM_OLDER: &str = "
    ALTER TABLE klaxon.agent ADD COLUMN updated_at timestamptz NOT NULL DEFAULT now();
    COMMENT ON COLUMN klaxon.agent.updated_at IS 'When the row was last changed';
    CREATE TRIGGER touch BEFORE UPDATE ON klaxon.agent FOR EACH ROW EXECUTE FUNCTION klaxon.touch();
    COMMENT ON FUNCTION klaxon.unread_count() IS 'How many messages of one''s inbox are unread';
    CREATE INDEX inbox_unread_idx ON klaxon.inbox (principal) WHERE read_at IS NULL;";

/// What the newer version has and the present one has not. The worker reads `outbox.project`, which changes its
/// type: a statement that was prepared before is of no more use. The library writes `outbox` without a statement, and
/// knows nothing of its new column, which must have its default.
const IN_NEWER: [(&str, &str); 5] = [
    (
        "    traceparent  text DEFAULT klaxon.traceparent()\n);\nCOMMENT ON TABLE  klaxon.event IS",
        "    traceparent  text DEFAULT klaxon.traceparent(),\n    note         text\n);\nCOMMENT ON COLUMN klaxon.event.note IS 'A note';\n\
         COMMENT ON TABLE  klaxon.event IS",
    ),
    (
        "    project          text,\n    last_error       text,\n    cooldown_task",
        "    project          varchar,\n    last_error       text,\n    cooldown_task",
    ),
    (
        "    held_for         interval,\n    PRIMARY KEY (channel_id, due_at, id)",
        "    held_for         interval,\n    priority         integer NOT NULL DEFAULT 10 / 2,\n    PRIMARY KEY (channel_id, due_at, id)",
    ),
    (
        "SELECT count(*) FROM klaxon.inbox WHERE principal",
        "SELECT count(id) FROM klaxon.inbox WHERE principal",
    ),
    (
        "-- Rights. PUBLIC has nothing;",
        "CREATE TABLE klaxon.remark (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, text text NOT NULL);\n\
         COMMENT ON TABLE klaxon.remark IS 'Remarks';\n\
         ALTER TABLE klaxon.remark ENABLE ROW LEVEL SECURITY;\n\
         CREATE POLICY readable ON klaxon.remark FOR SELECT TO klaxon_admin USING (true);\n\
         GRANT SELECT ON klaxon.remark TO klaxon_admin;\n\
         SELECT pg_catalog.pg_extension_config_dump('klaxon.remark', '');\n\
         -- Rights. PUBLIC has nothing;",
    ),
];
const TO_NEWER: &str = "
    ALTER TABLE klaxon.event ADD COLUMN note text;
    COMMENT ON COLUMN klaxon.event.note IS 'A note';
    ALTER TABLE klaxon.outbox ALTER COLUMN project TYPE varchar;
    ALTER TABLE klaxon.outbox ADD COLUMN priority integer NOT NULL DEFAULT 10 / 2;
    CREATE OR REPLACE FUNCTION klaxon.unread_count() RETURNS bigint
    LANGUAGE sql STABLE SET search_path = pg_catalog, klaxon, pg_temp AS $$
    SELECT count(id) FROM klaxon.inbox WHERE principal = klaxon.principal() AND read_at IS NULL
$$;
    CREATE TABLE klaxon.remark (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, text text NOT NULL);
    COMMENT ON TABLE klaxon.remark IS 'Remarks';
    ALTER TABLE klaxon.remark ENABLE ROW LEVEL SECURITY;
    CREATE POLICY readable ON klaxon.remark FOR SELECT TO klaxon_admin USING (true);
    GRANT SELECT ON klaxon.remark TO klaxon_admin;
    SELECT pg_catalog.pg_extension_config_dump('klaxon.remark', '');";

/// The note between others: where no update can put it.
const CARELESSLY: [(&str, &str); 2] = [
    (
        "    traceparent  text DEFAULT klaxon.traceparent(),\n    note         text\n);",
        "    traceparent  text DEFAULT klaxon.traceparent()\n);",
    ),
    (
        "    payload      jsonb NOT NULL DEFAULT '{}',\n",
        "    payload      jsonb NOT NULL DEFAULT '{}',\n    note         text,\n",
    ),
];

/// What every script that updates ends with: backends that know the former schema look again.
pub const ENDS_WITH: &str = "DELETE FROM klaxon.project WHERE false;";

/// The folder of the scripts in the sources.
#[must_use]
pub fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sql")
}

/// A copy of the installation under test that offers all of them beside what has been released.
///
/// # Errors
/// It cannot be copied; or the present schema has changed, and the texts above with it.
pub fn offered() -> anyhow::Result<Postgres> {
    let postgres = Postgres::under_test()?.copy()?;
    let folder = postgres.extension();
    for script in std::fs::read_dir(scripts())? {
        let script = script?;
        if script.file_name().to_string_lossy().starts_with("pg_klaxon--") {
            std::fs::copy(script.path(), folder.join(script.file_name()))?;
        }
    }
    let present = std::fs::read_to_string(folder.join(format!("pg_klaxon--{PRESENT}.sql")))?;
    let newer = edited(&present, &IN_NEWER)?;
    let write = |versions: &str, script: &str| {
        std::fs::write(folder.join(format!("pg_klaxon--{versions}.sql")), script)
    };
    let update = |script: &str| format!("{script}\n{ENDS_WITH}\n");
    write(OLDER, &edited(&present, &SINCE_OLDER)?)?;
    write(&format!("{OLDER}--{PRESENT}"), &update(FROM_OLDER))?;
    for (version, from, script) in
        [(NEWER, PRESENT, TO_NEWER), (MUCH_NEWER, NEWER, ""), (MAJOR, MUCH_NEWER, "")]
    {
        write(version, &newer)?;
        write(&format!("{from}--{version}"), &update(script))?;
    }
    write(CARELESS, &edited(&newer, &CARELESSLY)?)?;
    write(&format!("{PRESENT}--{CARELESS}"), &update(TO_NEWER))?;
    Ok(postgres)
}

fn edited(script: &str, edits: &[(&str, &str)]) -> anyhow::Result<String> {
    edits.iter().try_fold(script.to_owned(), |script, (from, to)| {
        let (before, after) =
            script.split_once(from).with_context(|| format!("the schema no longer has {from:?}"))?;
        Ok(format!("{before}{to}{after}"))
    })
}
