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
fn a_flag_wins_over_the_file() {
    let flags = Flags { concurrency: Some("7".into()), per_channel: Some("3".into()), ..Flags::default() };
    let settings = load("concurrency = 9\nper-channel = 9\nsmtp-host = 'mail'", &flags).unwrap();
    assert_eq!((settings.concurrency, settings.per_channel), (7, 3));
    assert_eq!(settings.smtp_host.as_deref(), Some("mail"));
}

#[test]
fn the_environment_is_read_by_name_and_lists_by_comma() {
    let variables = [
        ("KLAXON_ALLOW_PORT", "8443, 9000"),
        ("KLAXON_SMTP_HOST", "mail"),
        ("KLAXON_BLESS", "1"),
        ("HOME", "/"),
    ];
    let dict = environment(variables.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())));
    assert_eq!(dict.keys().collect::<Vec<_>>(), ["allow-port", "smtp-host"]);
    assert_eq!(dict["allow-port"].as_array().unwrap().len(), 2);
}

#[test]
fn what_is_wrong_is_named() {
    for (text, says) in [
        ("colour = 1", "colour"),
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
    ] {
        let error = format!("{:#}", load(text, &Flags::default()).unwrap_err());
        assert!(error.contains(says), "{text}: {error}");
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
    let shown = format!("{} {settings:?}", settings.masked());
    assert!(!shown.contains("hunter2") && !shown.contains("hunter3"), "{shown}");
}
