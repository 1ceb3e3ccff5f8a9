//! Whose certificates are believed: those that the public roots or the operator's vouch for, and the operator's own.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
};

/// Judges certificates.
#[derive(Debug)]
pub struct Trust {
    roots: Arc<WebPkiServerVerifier>,
    /// Those of `ca-file`.
    own: Vec<CertificateDer<'static>>,
}

impl Trust {
    /// Trusts the public roots and the operator's.
    ///
    /// # Errors
    /// Where the operator's file does not read.
    pub fn read(ca_file: Option<&Path>) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        let mut own = Vec::new();
        if let Some(path) = ca_file {
            let read = || format!("ca-file {}", path.display());
            for certificate in CertificateDer::pem_file_iter(path).with_context(read)? {
                let certificate = certificate.with_context(read)?;
                roots.add(certificate.clone()).with_context(read)?;
                own.push(certificate);
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        Ok(Self { roots, own })
    }

    /// TLS with whom it trusts.
    ///
    /// # Errors
    /// Never with the versions that are built in.
    pub fn tls(self: &Arc<Self>) -> anyhow::Result<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = Arc::clone(self) as _;
        Ok(ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth())
    }

    /// Judges what a server has shown, its own certificate first.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn judge(&self, shown: &[CertificateDer<'_>], name: &ServerName<'_>) -> Result<(), rustls::Error> {
        let (first, others) = shown.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        self.verify_server_cert(first, others, name, &[], UnixTime::now()).map(|_| ())
    }
}

/// What webpki says of a certificate that is in its time and makes itself out to be an authority: it judges the
/// time before that, and all else after.
fn is_of_an_authority(error: &rustls::Error) -> bool {
    matches!(error, rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(error)))
        if matches!(error.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity)))
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.roots.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // As "openssl req -x509" makes a certificate that signs itself. To have it in ca-file is to trust the server
            // that has its key.
            Err(error) if is_of_an_authority(&error) && self.own.contains(end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.roots.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.roots.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.roots.supported_verify_schemes()
    }
}
