//! TLS to Postgres, as libpq's `sslmode` says.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

/// What is asked of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Never TLS.
    Disabled,
    /// TLS where the server insists.
    Allowed,
    /// TLS where the server offers it.
    Preferred,
    /// TLS with any certificate.
    Required,
    /// TLS with a certificate that the roots vouch for, and with `name` the host's own.
    Verified {
        /// A PEM file of roots; the public ones where it is absent.
        root: Option<PathBuf>,
        /// Whether the name is checked (`verify-full`).
        name: bool,
    },
}

impl Mode {
    /// Reads libpq's word.
    ///
    /// # Errors
    /// Where libpq would not know it either.
    pub fn parse(mode: &str, root: Option<String>) -> anyhow::Result<Self> {
        let given = root.is_some();
        let root = root.filter(|root| !root.is_empty() && root != "system").map(PathBuf::from);
        Ok(match mode {
            "disable" => Self::Disabled,
            "allow" => Self::Allowed,
            "prefer" => Self::Preferred,
            // As libpq does: with roots given, require verifies them.
            "require" if !given => Self::Required,
            "require" | "verify-ca" => Self::Verified { root, name: false },
            "verify-full" => Self::Verified { root, name: true },
            _ => bail!(
                "sslmode \"{mode}\" is none of disable, allow, prefer, require, verify-ca and verify-full"
            ),
        })
    }

    /// How to try to connect, one after the other: libpq tries the other way where the server
    /// refuses the first by its rules.
    pub fn ways(&self) -> &'static [SslMode] {
        match self {
            Self::Disabled => &[SslMode::Disable],
            Self::Allowed => &[SslMode::Disable, SslMode::Require],
            Self::Preferred => &[SslMode::Prefer, SslMode::Disable],
            Self::Required | Self::Verified { .. } => &[SslMode::Require],
        }
    }
}

/// The connector of a mode. That of [`Mode::Disabled`] is never asked.
pub fn connector(mode: &Mode) -> anyhow::Result<MakeRustlsConnect> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let config = match mode {
        Mode::Disabled | Mode::Allowed | Mode::Preferred | Mode::Required => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Lenient { provider, roots: None }))
            .with_no_client_auth(),
        Mode::Verified { root, name } => {
            let roots = roots(root.as_ref())?;
            if *name {
                builder.with_root_certificates(roots).with_no_client_auth()
            } else {
                let verifier =
                    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                        .build()?;
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(Lenient { provider, roots: Some(verifier) }))
                    .with_no_client_auth()
            }
        }
    };
    Ok(MakeRustlsConnect::new(config))
}

fn roots(file: Option<&PathBuf>) -> anyhow::Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    match file {
        None => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            let read = || format!("sslrootcert {}", path.display());
            for certificate in CertificateDer::pem_file_iter(path).with_context(read)? {
                store.add(certificate.with_context(read)?).with_context(read)?;
            }
        }
    }
    Ok(store)
}

/// Checks signatures always; the chain where there are roots; the name never. That is what libpq
/// means by `require` and `verify-ca`.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    roots: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(roots) = &self.roots else { return Ok(ServerCertVerified::assertion()) };
        match roots.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
