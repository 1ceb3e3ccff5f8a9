use std::io::Write as _;

use secrecy::ExposeSecret as _;

use super::*;

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn load(text: &str, flags: &Flags) -> anyhow::Result<Settings> {
    Settings::load(Some(file(text).path()), flags)
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let settings = load("", &Flags::default()).unwrap();
    assert_eq!((settings.concurrency, settings.per_channel), (256, 16));
    assert_eq!(settings.http_timeout, Duration::from_secs(10));
    assert_eq!(settings.response_cap, 8192);
    assert_eq!(settings.metrics_addr.to_string(), "127.0.0.1:9464");
    assert!(!settings.allow_http && settings.allow_port.is_empty() && settings.database_url.is_empty());
}

#[test]
fn a_file_says_things_in_units_and_lists() {
    let settings = load(
        "database-url = ['postgres://a', 'postgres://b']\nhttp-timeout = '500 ms'\npoll-interval = 2\nallow-port = [8443, '9000']\n\
         egress-allow = ['10.0.0.0/8']\nallow-http = true\nsmtp-secure = 'on'\nconcurrency = '32'\nper-channel = 8",
        &Flags::default(),
    )
    .unwrap();
    assert_eq!(settings.database_url[1].expose_secret(), "postgres://b");
    assert_eq!(settings.http_timeout, Duration::from_millis(500));
    assert_eq!(settings.poll_interval, Duration::from_secs(2));
    assert_eq!(settings.allow_port, [8443, 9000]);
    assert_eq!(settings.egress_allow[0].to_string(), "10.0.0.0/8");
    assert_eq!((settings.allow_http, settings.smtp_secure, settings.concurrency), (true, Some(true), 32));
}

#[test]
fn an_address_is_a_network_of_its_own() {
    let networks = |text: &str| load(&format!("egress-allow = ['{text}']"), &Flags::default());
    for (text, read) in [
        ("127.0.0.1", "127.0.0.1/32"),
        ("fd00::1", "fd00::1/128"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("::/0", "::/0"),
    ] {
        assert_eq!(networks(text).unwrap().egress_allow[0].to_string(), read);
    }
    for text in ["localhost", "10.0.0.0/33", "10.0.0", "127.0.0.1:80", "[::1]"] {
        let said = format!("{:#}", networks(text).unwrap_err());
        let says = format!("\"{text}\" is neither an address nor a network like 10.0.0.0/8");
        assert!(said.contains(&says), "{said}");
    }
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    for (file, environment, flag, host) in [
        (None, None, None, "127.0.0.1:9464"),
        (Some("[::1]:1"), None, None, "[::1]:1"),
        (Some("[::1]:1"), Some("[::1]:2"), None, "[::1]:2"),
        (Some("[::1]:1"), Some(""), None, "[::1]:1"),
        (None, Some("[::1]:2"), Some("[::1]:3"), "[::1]:3"),
        (Some("[::1]:1"), None, Some("[::1]:3"), "[::1]:3"),
        (Some("[::1]:1"), Some("[::1]:2"), Some("[::1]:3"), "[::1]:3"),
    ] {
        let text =
            file.map(|value| format!("metrics-addr = '{value}'\nsmtp-host = 'mail'")).unwrap_or_default();
        let written = self::file(&text);
        let variables = environment.map(|value| ("KLAXON_METRICS_ADDR".to_owned(), value.to_owned()));
        let flags = Flags { metrics_addr: flag.map(str::to_owned), ..Flags::default() };
        let settings = Settings::read(Some(written.path()), variables.into_iter(), &flags).unwrap();
        assert_eq!(settings.metrics_addr.to_string(), host, "{file:?} {environment:?} {flag:?}");
        assert_eq!(settings.smtp_host.is_some(), file.is_some(), "what is not overridden stays");
    }
}

#[test]
fn lists_are_repeated_flags_commas_in_the_environment_and_arrays_in_the_file() {
    let written = file("allow-port = [1, 2]");
    let read = |variables: &[(&str, &str)], flags: &Flags| {
        let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Settings::read(Some(written.path()), variables, flags).unwrap()
    };
    let flags = Flags { allow_port: vec!["5".into(), "6".into()], ..Flags::default() };
    let variables = [("KLAXON_ALLOW_PORT", "3, 4"), ("KLAXON_BLESS", "1"), ("HOME", "/")];
    assert_eq!(read(&[], &Flags::default()).allow_port, [1, 2]);
    assert_eq!(read(&variables, &Flags::default()).allow_port, [3, 4]);
    assert_eq!(read(&variables, &flags).allow_port, [5, 6]);
}

#[test]
fn a_comma_inside_a_connection_string_divides_nothing() {
    for (text, urls) in [
        ("postgres://a/x", &["postgres://a/x"][..]),
        ("postgres://a,b/x, postgresql://c/y", &["postgres://a,b/x", "postgresql://c/y"]),
        ("host=a,b port=1,2 dbname=x,host=c dbname=y", &["host=a,b port=1,2 dbname=x", "host=c dbname=y"]),
    ] {
        let written = file("");
        let variables = [("KLAXON_DATABASE_URL".to_owned(), text.to_owned())];
        let settings =
            Settings::read(Some(written.path()), variables.into_iter(), &Flags::default()).unwrap();
        let found: Vec<&str> = settings.database_url.iter().map(|url| url.expose_secret()).collect();
        assert_eq!(found, urls, "{text}");
    }
}

#[test]
fn files_are_beside_the_file_that_names_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("klaxon.toml");
    std::fs::write(&path, "secret-key-file = 'secret.key'\naudit-key-file = '/etc/audit.key'").unwrap();
    let flags = Flags { ca_file: Some("ca.pem".into()), ..Flags::default() };
    let settings = Settings::load(Some(&path), &flags).unwrap();
    assert_eq!(settings.secret_key_file, Some(folder.path().join("secret.key")));
    assert_eq!(settings.audit_key_file, Some("/etc/audit.key".into()));
    assert_eq!(settings.ca_file, Some("ca.pem".into()), "a flag's is where it was typed");
}

#[test]
fn what_is_wrong_is_named() {
    for (text, says) in [
        ("colour = 1", "there is no setting \"colour\""),
        ("smtp-pass = 'hunter2", "line 1: "),
        ("\n\nsmtp-pass = ['hunter2']", "smtp-pass is neither"),
        ("deployment-id = 'x'", "deployment-id \"x\" is no UUID"),
        ("connect-to = ['a:1:b']", "connect-to"),
        ("concurrency = 0", "concurrency must be 1 to 10000, not 0"),
        ("concurrency = 8\nper-channel = 9", "per-channel must be 1 to 8 (concurrency), not 9"),
        ("http-timeout = 'soon'", "\"soon\" is no time"),
        ("http-timeout = '-1 s'", "\"-1 s\" is no time"),
        ("response-cap = '9 KiB'", "response-cap must be 0 to 8192 bytes"),
        ("allow-port = [70000]", "\"70000\""),
        ("egress-allow = ['10.0.0.0/99']", "\"10.0.0.0/99\""),
        ("smtp-port = 26", "smtp-port must be 25, 465, 587 or 2525, not 26"),
        ("smtp-pass = 'x'", "smtp-user is required"),
        ("site-url = 'ftp://x'", "site-url must be http"),
        ("log-format = 'xml'", "log-format"),
        ("otlp-endpoint = 'collector:4318'", "otlp-endpoint: it is neither http nor https"),
        (
            "otlp-endpoint = 'https://u:hunter2@collector'",
            "otlp-endpoint: a name and a password belong into otlp-headers",
        ),
        ("otlp-headers = 'hunter2'", "otlp-headers is not name=value"),
    ] {
        let error = format!("{:#}", load(text, &Flags::default()).unwrap_err());
        assert!(error.contains(says) && !error.contains("hunter2"), "{text}: {error}");
    }
    let missing = Settings::load(Some(Path::new("/nowhere/klaxon.toml")), &Flags::default()).unwrap_err();
    assert!(missing.to_string().contains("klaxon init --config /nowhere/klaxon.toml"), "{missing}");
}

#[test]
fn secrets_are_masked() {
    let settings = load(
        "smtp-user = 'u'\nsmtp-pass = 'hunter2'\ndatabase-url = 'postgres://u:hunter3@h/d'",
        &Flags::default(),
    )
    .unwrap();
    let spaced = load("smtp-user = 'u'\nsmtp-pass = ' x '", &Flags::default()).unwrap();
    assert_eq!(spaced.smtp_pass.unwrap().expose_secret(), " x ");
    let shown = format!("{} {settings:?}", settings.masked());
    assert!(!shown.contains("hunter2") && !shown.contains("hunter3"), "{shown}");
}

#[test]
fn where_spans_go_is_what_all_exporters_are_told_unless_we_are_told_otherwise() {
    let written = file("otlp-endpoint = 'http://file:4318'");
    let common = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://common:4318/x");
    let headers = ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=hunter2");
    let ours = ("KLAXON_OTLP_ENDPOINT", "http://ours:4318");
    for (variables, endpoint, has_headers) in [
        (&[][..], "http://file:4318", false),
        (&[common, headers], "http://common:4318", true),
        (&[ours, common], "http://ours:4318", false),
        (&[(common.0, ""), ("OTEL_SERVICE_NAME", "x")], "http://file:4318", false),
    ] {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let settings = Settings::read(Some(written.path()), variables, &Flags::default()).unwrap();
        let shown = settings.masked();
        assert_eq!(shown["otlp-endpoint"], endpoint, "and no path");
        assert_eq!(settings.otlp_headers.is_some(), has_headers);
        assert!(!format!("{shown} {settings:?}").contains("hunter2"));
    }
}

#[test]
fn who_can_be_reached_from_elsewhere_needs_a_token() {
    let read = |address: &str, token: Option<&str>| {
        let flags = Flags {
            metrics_addr: Some(address.to_owned()),
            metrics_token: token.map(str::to_owned),
            ..Flags::default()
        };
        Settings::read(None, std::iter::empty(), &flags).map(drop).map_err(|error| error.to_string())
    };
    for address in ["127.0.0.1:9464", "127.9.9.9:1", "[::1]:9464"] {
        assert_eq!(read(address, None), Ok(()), "{address}");
    }
    for address in ["0.0.0.0:9464", "[::]:9464", "10.0.0.1:9464", "[::ffff:127.0.0.1]:9464"] {
        assert!(read(address, None).unwrap_err().contains("metrics-token"), "{address}");
        assert_eq!(read(address, Some("sixteen letters.")), Ok(()));
        assert!(read(address, Some("fifteen letters")).unwrap_err().contains("16 characters"));
    }
    assert!(read("127.0.0.1:1", Some("short")).is_err());
}
