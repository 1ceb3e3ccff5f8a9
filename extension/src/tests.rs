//! What one backend does inside one transaction. Notifications, other sessions and commits are the
//! client tests' business.

// pgrx wants the module inline.
#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    /// A global webhook, `ops`.
    fn channel() -> i64 {
        one("INSERT INTO klaxon.channel (name, kind, config)
         VALUES ('ops', 'webhook', '{\"url\": \"https://hooks.example.com/ops\"}') RETURNING id")
    }

    fn one<T: FromDatum + IntoDatum>(query: &str) -> T {
        Spi::get_one(query).expect("the query runs").expect("the query returns a value")
    }

    fn run(query: &str) {
        Spi::run(query).expect("the statement runs");
    }

    /// How many deliveries are pending.
    fn pending() -> i64 {
        one("SELECT count(*) FROM klaxon.outbox")
    }

    #[pg_test]
    fn an_event_becomes_one_delivery_a_channel() {
        channel();
        run(
            "INSERT INTO klaxon.channel (name, kind, config) VALUES ('second', 'webhook', '{\"url\": \"https://b.example.com\"}')",
        );
        run("SELECT klaxon.subscribe(ARRAY['ops', 'second'], ARRAY['run.failed'], owner => NULL)");
        run("SELECT klaxon.notify_event('run.failed', '{\"run_id\": \"7\"}')");
        assert_eq!(pending(), 2);
        assert!(one::<bool>(
            "SELECT bool_and(shard = channel_id % 64 AND xid = pg_current_xact_id() AND attempts = 0) FROM klaxon.outbox"
        ));
    }

    #[pg_test]
    fn a_glob_of_types_matches_and_another_type_does_not() {
        channel();
        run("SELECT klaxon.subscribe(ARRAY['ops'], ARRAY['run.*'], owner => NULL)");
        run("INSERT INTO klaxon.event (type) VALUES ('run.finished'), ('run.failed'), ('task.failed')");
        assert_eq!(pending(), 2);
    }

    #[pg_test]
    fn configuration_changed_in_the_same_transaction_is_seen() {
        channel();
        run("SELECT klaxon.notify_event('run.failed')");
        assert_eq!(pending(), 0);
        run("SELECT klaxon.subscribe(ARRAY['ops'], ARRAY['run.failed'], owner => NULL)");
        run("SELECT klaxon.notify_event('run.failed')");
        assert_eq!(pending(), 1);
        run("UPDATE klaxon.channel SET enabled = false");
        run("SELECT klaxon.notify_event('run.failed')");
        assert_eq!(pending(), 1);
    }

    #[pg_test]
    fn a_rolled_back_subscription_is_forgotten() {
        channel();
        run("DO $$ BEGIN
            PERFORM klaxon.subscribe(ARRAY['ops'], ARRAY['run.failed'], owner => NULL);
            PERFORM klaxon.notify_event('run.failed');
            RAISE EXCEPTION 'undo';
         EXCEPTION WHEN raise_exception THEN NULL;
         END $$");
        assert_eq!(pending(), 0);
        run("SELECT klaxon.notify_event('run.failed')");
        assert_eq!(pending(), 0);
    }

    #[pg_test(error = "unknown event type \"run.faild\"")]
    fn a_typo_in_the_type_is_an_error() {
        run("SELECT klaxon.notify_event('run.faild')");
    }

    #[pg_test(error = "payload of 2012 bytes is over the limit of 1024")]
    fn a_payload_over_the_limit_is_an_error() {
        run("SET LOCAL klaxon.max_payload_bytes = 1024");
        run("SELECT klaxon.notify_event('run.failed', jsonb_build_object('a', repeat('x', 1995)))");
    }

    #[pg_test]
    fn payloads_that_other_parsers_refuse_are_matched() {
        channel();
        run(
            "SELECT klaxon.subscribe(ARRAY['ops'], ARRAY['task.failed'], filters => '{\"queue\": \"mail\"}', owner => NULL)",
        );
        run("SELECT klaxon.notify_event('task.failed', (repeat('[', 200) || repeat(']', 200))::jsonb)");
        assert_eq!(pending(), 0);
        run("SELECT klaxon.notify_event('task.failed',
            ('{\"queue\": \"mail\", \"n\": 1e400, \"m\": 1234567890123456789012345, \"deep\": ' || repeat('[', 200) || repeat(']', 200) || '}')::jsonb)");
        assert_eq!(pending(), 1);
    }

    #[pg_test]
    fn a_known_dedup_key_inserts_nothing_and_returns_the_first() {
        channel();
        run("SELECT klaxon.subscribe(ARRAY['ops'], ARRAY['run.failed'], owner => NULL)");
        let first: pgrx::Uuid = one("SELECT klaxon.notify_event('run.failed', dedup_key => 'k')");
        let again: pgrx::Uuid = one("SELECT klaxon.notify_event('run.failed', dedup_key => 'k')");
        assert_eq!(first, again);
        run("INSERT INTO klaxon.event (type, dedup_key) VALUES ('run.failed', 'k')");
        assert_eq!(pending(), 1);
        run("SELECT klaxon.notify_event('run.failed', project => 'p', dedup_key => 'k')");
        assert_eq!(pending(), 2);
    }

    #[pg_test]
    fn history_is_not_matched() {
        channel();
        run("SELECT klaxon.subscribe(ARRAY['ops'], ARRAY['run.failed'], owner => NULL)");
        run("INSERT INTO klaxon.event (type, created_at) VALUES ('run.failed', now() - interval '1 day')");
        assert_eq!(pending(), 0);
    }

    #[pg_test]
    fn filters_hold_before_a_delivery_is_written() {
        channel();
        run("SELECT klaxon.subscribe(ARRAY['ops'], ARRAY['task.slow'],
            filters => '{\"task_name_pattern\": \"report.*\", \"priority_min\": \"high\", \"where\": \"$.cost > 10\"}', owner => NULL)");
        for (payload, expected) in [
            (r#"{"task_name": "report.daily", "priority": 2, "cost": 11}"#, 1),
            (r#"{"task_name": "report.daily", "priority": "critical", "cost": 11}"#, 2),
            (r#"{"task_name": "mail.daily", "priority": 2, "cost": 11}"#, 2),
            (r#"{"task_name": "report.daily", "cost": 11}"#, 2),
            (r#"{"task_name": "report.daily", "priority": 2, "cost": 10}"#, 2),
            (r#"{"task_name": "report.daily", "priority": 2, "cost": "many"}"#, 2),
        ] {
            run(&format!("SELECT klaxon.notify_event('task.slow', '{payload}')"));
            assert_eq!(pending(), expected, "{payload}");
        }
        assert_eq!(one::<i64>("SELECT sum(events)::bigint FROM klaxon.filter_error"), 1);
    }

    #[pg_test]
    fn a_person_removed_from_a_project_hears_nothing_more() {
        run("INSERT INTO klaxon.project (slug) VALUES ('billing')");
        run("INSERT INTO klaxon.member (project, principal) VALUES ('billing', 'alice')");
        channel();
        run(
            "SELECT klaxon.subscribe(ARRAY['ops'], ARRAY['run.failed'], project => 'billing', owner => 'alice')",
        );
        run("SELECT klaxon.subscribe(ARRAY['ops'], ARRAY['run.failed'], owner => 'alice')");
        run("SELECT klaxon.notify_event('run.failed', project => 'billing')");
        assert_eq!(pending(), 2);
        run("DELETE FROM klaxon.member");
        run("SELECT klaxon.notify_event('run.failed', project => 'billing')");
        assert_eq!(pending(), 2);
        // A project nobody registered is nobody's to be a member of.
        run("SELECT klaxon.notify_event('run.failed', project => 'unheard-of')");
        assert_eq!(pending(), 3);
    }

    /// Any X25519 public key will do to seal to.
    const PUBLIC_KEY: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

    #[pg_test]
    fn secrets_are_masked_in_the_row_and_sealed_beside_it() {
        run(&format!("SELECT klaxon.set_public_key('{PUBLIC_KEY}')"));
        run(r#"INSERT INTO klaxon.channel (name, kind, config) VALUES ('signed', 'webhook',
        '{"url": "https://hooks.example.com/x", "hmac_secret": "whsec_c2VjcmV0", "headers": {"Authorization": "Bearer t0k3n"}}')"#);
        assert!(one::<bool>(
            "SELECT config->>'hmac_secret' = '••••••••' AND config->'headers'->>'Authorization' = '••••••••' FROM klaxon.channel"
        ));
        assert_eq!(
            one::<String>(
                "SELECT string_agg(field || ' ' || destination, ', ' ORDER BY field) FROM klaxon.channel_secret WHERE sealed LIKE 'sealed:v1:%'"
            ),
            "headers.Authorization https://hooks.example.com:443, hmac_secret https://hooks.example.com:443"
        );
        // The mask keeps the secret, and a field left out drops it.
        let before: String = one("SELECT sealed FROM klaxon.channel_secret WHERE field = 'hmac_secret'");
        run(
            r#"UPDATE klaxon.channel SET config = '{"url": "https://hooks.example.com/y", "hmac_secret": "••••••••"}'"#,
        );
        assert_eq!(one::<String>("SELECT sealed FROM klaxon.channel_secret"), before);
    }

    #[pg_test]
    fn an_upsert_brings_its_secret_along() {
        run(&format!("SELECT klaxon.set_public_key('{PUBLIC_KEY}')"));
        let upsert = |secret: &str| {
            run(&format!(
                r#"INSERT INTO klaxon.channel (name, kind, config)
               VALUES ('signed', 'webhook', '{{"url": "https://a.example.com", "hmac_secret": "{secret}"}}')
               ON CONFLICT (name, project, owner) DO UPDATE SET config = EXCLUDED.config"#
            ));
            one::<String>("SELECT sealed FROM klaxon.channel_secret")
        };
        let first = upsert("one");
        let second = upsert("two");
        assert_ne!(first, second);
        assert_eq!(one::<i64>("SELECT count(*) FROM klaxon.channel_secret"), 1);
    }

    #[pg_test(error = "config field \"hmac_secret\": a secret is not kept while where it is sent to changes")]
    fn a_kept_secret_does_not_follow_a_new_destination() {
        run(&format!("SELECT klaxon.set_public_key('{PUBLIC_KEY}')"));
        run(r#"INSERT INTO klaxon.channel (name, kind, config)
           VALUES ('signed', 'webhook', '{"url": "https://a.example.com", "hmac_secret": "one"}')"#);
        run(
            r#"UPDATE klaxon.channel SET config = '{"url": "https://evil.example.com", "hmac_secret": "••••••••"}'"#,
        );
    }

    #[pg_test(
        error = "new row for relation \"channel\" violates check constraint \"channel_secrets_sealed\""
    )]
    fn a_secret_in_clear_is_refused_with_triggers_off() {
        run("SET LOCAL session_replication_role = replica");
        run(r#"INSERT INTO klaxon.channel (name, kind, config)
           VALUES ('signed', 'webhook', '{"url": "https://a.example.com", "hmac_secret": "one"}')"#);
    }

    #[pg_test]
    fn identities_are_ordered_also_within_a_millisecond() {
        assert!(one::<bool>(
        "SELECT bool_and(next > id) FROM (SELECT id, lead(id) OVER (ORDER BY n) AS next
         FROM (SELECT n, klaxon.uuid_v7() AS id FROM generate_series(1, 1000) AS n) AS made) AS pairs WHERE next IS NOT NULL"
    ));
    }

    #[pg_test]
    fn the_principal_is_the_setting_for_members_of_klaxon_app_alone() {
        run("CREATE ROLE backend IN ROLE klaxon_app");
        run("CREATE ROLE somebody IN ROLE klaxon_user");
        run("SET LOCAL klaxon.principal = 'alice'");
        run("SET LOCAL ROLE backend");
        assert_eq!(one::<String>("SELECT klaxon.principal()"), "alice");
        run("SET LOCAL ROLE somebody");
        assert_eq!(one::<String>("SELECT klaxon.principal()"), "somebody");
    }

    #[pg_test]
    fn a_digest_is_due_at_the_next_time_of_day_that_exists() {
        for (at, zone, now, due) in [
            ("08:00", "UTC", "2026-05-01 07:59:59+00", "2026-05-01 08:00:00+00"),
            ("08:00", "UTC", "2026-05-01 08:00:00+00", "2026-05-02 08:00:00+00"),
            // Berlin skips 02:00 to 03:00 on 2026-03-29, when 02:30 is due at 03:00, and has 02:00 to 03:00 twice on 2026-10-25.
            ("02:30", "Europe/Berlin", "2026-03-28 12:00:00+00", "2026-03-29 01:00:00+00"),
            ("02:30", "Europe/Berlin", "2026-10-24 12:00:00+00", "2026-10-25 01:30:00+00"),
            ("02:30", "Europe/Berlin", "2026-10-25 01:30:00+00", "2026-10-26 01:30:00+00"),
        ] {
            assert!(
                one::<bool>(&format!("SELECT klaxon.digest_due('{at}', '{zone}', '{now}') = '{due}'")),
                "{at} {zone} after {now}"
            );
        }
    }
}
