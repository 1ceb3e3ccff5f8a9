//! The Postgres half of pg_klaxon.
::pgrx::pg_module_magic!(name, version);
