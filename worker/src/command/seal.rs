//! `klaxon seal`: a secret that need not appear in an SQL statement.

use std::io::{IsTerminal as _, Read as _};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use klaxon_model::seal::{Plaintext, PublicKey, seal};
use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::config::Settings;
use crate::keys;

/// Seal a secret read from standard input, to be written in its place
#[derive(Args)]
pub struct Seal {
    /// The channel it is for, where that exists already
    #[arg(long, value_name = "ID")]
    channel: Option<i64>,
    /// The field it is for, such as hmac_secret or headers.Authorization [default: any]
    #[arg(long, default_value = "", hide_default_value = true)]
    field: String,
    /// Where it may be sent: scheme, host and port, such as `https://hooks.example.com:443`
    #[arg(long, value_name = "ORIGIN")]
    destination: Option<String>,
    /// The key to seal to, base64 [default: that of secret-key-file]
    #[arg(long, value_name = "KEY")]
    public_key: Option<String>,
}

impl Seal {
    /// Works without a database: reads the secret, drops one final newline, prints it sealed.
    pub fn run(self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let key = match &self.public_key {
            Some(key) => PublicKey::from_base64(key).context("--public-key")?,
            None => keys::secret_keys(settings)?.first().context("no key")?.public(),
        };
        if std::io::stdin().is_terminal() {
            eprintln!("Type the secret, then Ctrl-D. It is shown as you type; better pipe it in.");
        }
        let mut text = Zeroizing::new(String::new());
        std::io::stdin().read_to_string(&mut text).context("standard input is no UTF-8")?;
        let value = Zeroizing::new(text.strip_suffix('\n').unwrap_or(&text).to_owned());
        if value.is_empty() {
            bail!("standard input is empty: pipe the secret in");
        }
        println!(
            "{}",
            seal(
                &key,
                &Plaintext {
                    v: 1,
                    channel: self.channel,
                    destination: self.destination,
                    field: self.field,
                    value: SecretString::from(value.as_str())
                }
            )
        );
        Ok(ExitCode::SUCCESS)
    }
}
