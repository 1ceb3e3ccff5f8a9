use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use super::*;

fn none(_: &str) -> Option<String> {
    None
}

#[test]
fn urls_and_strings_read() {
    let verified = |name| tls::Mode::Verified { root: Some("/a+b/ca.pem".into()), name };
    for (text, wanted, mode) in [
        ("postgres://u:p@db.example.com:5433/app", "db.example.com/app", tls::Mode::Preferred),
        ("postgresql://u@h/d?sslmode=disable", "h/d", tls::Mode::Disabled),
        ("postgres://u@h/d?sslmode=allow", "h/d", tls::Mode::Allowed),
        ("postgres://u@h/d?sslmode=require", "h/d", tls::Mode::Required),
        (
            "postgres://u@h/d?sslmode=verify-full&sslrootcert=%2Fa+b%2Fca.pem&connect_timeout=3",
            "h/d",
            verified(true),
        ),
        ("postgres://u@h/d?sslrootcert=/a%2Bb/ca.pem&sslmode=verify-ca", "h/d", verified(false)),
        ("postgres://u@h/d?sslrootcert=/a%2Bb/ca.pem&sslmode=require", "h/d", verified(false)),
        ("postgres://u@h/d?sslmode=verify-full", "h/d", tls::Mode::Verified { root: None, name: true }),
        (
            "postgres://u@h/d?sslmode=verify-full&sslrootcert=system",
            "h/d",
            tls::Mode::Verified { root: None, name: true },
        ),
        ("postgres://u@one:1,two:2/d?target_session_attrs=read-write", "one,two/d", tls::Mode::Preferred),
        ("host=/run/pg user=u dbname=d sslmode=require", "/run/pg/d", tls::Mode::Disabled),
        ("host = h  user=u dbname='my db' sslmode = 'require'", "h/my db", tls::Mode::Required),
        // An address without a name is no socket: asked to, it is verified.
        (
            "hostaddr=192.0.2.1 user=u dbname=d sslmode=verify-full",
            "192.0.2.1/d",
            tls::Mode::Verified { root: None, name: true },
        ),
        ("", "/var/run/postgresql/", tls::Mode::Disabled),
    ] {
        let (config, found) = parse(text, &none).unwrap();
        assert!(name(&config).starts_with(wanted), "{text}: {}", name(&config));
        assert_eq!(found, mode, "{text}");
    }
}

#[test]
fn quotes_and_backslashes_are_kept_as_libpq_keeps_them() {
    for (text, password) in [
        ("password=secret user=u", "secret"),
        ("password='two  spaces' user=u", "two  spaces"),
        (r"password='it\'s \\ sslmode=disable' user=u", r"it's \ sslmode=disable"),
        (r"user=u password=a\ b", "a b"),
        ("user=u password=''", ""),
    ] {
        let (config, _) = parse(text, &none).unwrap();
        assert_eq!(config.get_password(), Some(password.as_bytes()), "{text}");
    }
}

#[test]
fn the_environment_fills_what_is_left_out() {
    let environment = |key: &str| {
        let value = match key {
            "PGUSER" => "ann",
            "PGHOST" => "one,two",
            "PGPORT" => "6543",
            "PGDATABASE" => "app",
            "PGSSLMODE" => "require",
            "PGAPPNAME" => "pager",
            "PGTARGETSESSIONATTRS" => "read-write",
            "PGPASSWORD" => "",
            _ => return None,
        };
        Some(value.to_owned())
    };
    let (config, mode) = parse("", &environment).unwrap();
    assert_eq!((name(&config).as_str(), config.get_ports()), ("one,two/app", &[6543][..]));
    assert_eq!((mode, config.get_application_name()), (tls::Mode::Required, Some("klaxon pager")));
    assert_eq!(config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
    assert_eq!(config.get_password(), None, "an empty variable is none");

    let (config, mode) = parse("host=h user=bob sslmode=disable", &environment).unwrap();
    assert_eq!(
        (config.get_user(), name(&config).as_str(), mode),
        (Some("bob"), "h/app", tls::Mode::Disabled)
    );
}

#[test]
fn a_connection_string_has_the_last_word() {
    let (config, _) = parse("postgres://u@h/d?connect_timeout=3&application_name=mine", &none).unwrap();
    assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(3)));
    assert_eq!(config.get_application_name(), Some("klaxon mine"));
    let (config, _) = parse("postgres://u@h/d", &none).unwrap();
    assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(5)));
    assert_eq!(config.get_application_name(), Some("klaxon"));
    assert_eq!(config.get_tcp_user_timeout(), Some(&Duration::from_secs(10)));
}

#[test]
fn what_does_not_read_is_refused_without_its_password() {
    for (text, says) in [
        ("postgres://u:hunter2@h:port/d", "does not read"),
        ("postgres://u@h/d?sslmode=maybe", "\"maybe\""),
        ("host=/run/pg user=u sslmode=maybe", "\"maybe\""),
        ("postgres://u:hunter2@h/d?sslcert=/x", "sslcert is not known"),
        ("user=u password=two hunter2", "\"=\" is missing"),
        ("user=u password='hunter2", "quote"),
        ("user=u password=two hunter2=2", "does not read"),
    ] {
        let error = format!("{:#}", parse(text, &none).unwrap_err());
        assert!(error.contains(says) && !error.contains("hunter2"), "{text}: {error}");
    }
}

#[test]
fn a_password_file_is_read_as_libpq_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pgpass");
    std::fs::write(
        &path,
        "# no\nother:*:*:*:wrong\nh:5432:d:u:a\\:b\\\\c\nlocalhost:*:*:u:local\n/run/pg:*:*:u:socket\n",
    )
    .unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let shown = path.display().to_string();
    let environment = |key: &str| (key == "PGPASSFILE").then(|| shown.clone());
    for (text, password) in [
        ("postgres://u@h:5432/d", Some("a:b\\c")),
        ("postgres://u@h:5433/d", None),
        ("host=/var/run/postgresql user=u", Some("local")),
        ("host=/run/pg user=u", Some("socket")),
        ("postgres://u:own@h:5432/d", Some("own")),
    ] {
        let (config, _) = parse(text, &environment).unwrap();
        assert_eq!(config.get_password(), password.map(str::as_bytes), "{text}");
    }
    let (config, _) = parse(&format!("host=h user=u dbname=d passfile={shown}"), &none).unwrap();
    assert!(config.get_password().is_some());

    std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let (config, _) = parse("postgres://u@h:5432/d", &environment).unwrap();
    assert_eq!(config.get_password(), None, "it is open to others");
}

proptest::proptest! {
    /// Whatever stands around a password, and whatever is wrong with it, it is not said.
    #[test]
    fn no_text_panics_or_says_its_password(
        around in "\\PC{0,40}",
        keys in "( ?(host|port|user|dbname|sslmode|password|x)[ =]{0,3}('[^']{0,8}'?|[^ ]{0,8})){0,4}",
    ) {
        for text in [
            around.clone(),
            keys.clone(),
            format!("postgres://{around}"),
            format!("postgres://u:hunter2@{around}"),
            format!("postgres://u:hunter2@h/d?{around}"),
            format!("{keys} password=hunter2 {around}"),
        ] {
            if let Err(error) = parse(&text, &none) {
                proptest::prop_assert!(!format!("{error:#}").contains("hunter2"), "{}", text);
            }
        }
    }
}
