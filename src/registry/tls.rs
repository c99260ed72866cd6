//! Whom to trust: the system's CA certificates, `SSL_CERT_FILE`, and Docker's directory per
//! registry.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use super::error::printable;
use crate::store;

/// The certificates that servers are verified with.
#[derive(Clone)]
pub(super) struct Trust {
    roots: RootCertStore,
    /// Those that the operator named, as opposed to the system's.
    named: Vec<CertificateDer<'static>>,
}

impl Trust {
    /// Trust in no server, for connections without TLS.
    pub(super) fn nobody() -> Self {
        Self { roots: RootCertStore::empty(), named: Vec::new() }
    }

    /// The system's CA certificates and those of `ca_file`.
    ///
    /// As in Go's programs, Docker among them, `SSL_CERT_FILE` takes the place of the system's
    /// bundle but not of its directory of certificates: a private CA does not lock out public
    /// registries.
    pub(super) fn load(ca_file: Option<&Path>) -> Result<Self, String> {
        let mut trust = Self::nobody();
        // It is among what the system names, and a pipe would be waited for.
        ca_file.map_or(Ok(()), store::check).map_err(|error| error.to_string())?;
        let mut found = rustls_native_certs::load_native_certs().certs;
        if ca_file.is_some() {
            for directory in openssl_probe::candidate_cert_dirs() {
                found.extend(
                    rustls_native_certs::load_certs_from_paths(None, Some(directory)).certs,
                );
            }
        }
        let (_, ignored) = trust.roots.add_parsable_certificates(found);
        if ignored > 0 {
            tracing::debug!("{ignored} of the system's CA certificates are unusable");
        }
        match ca_file {
            Some(file) => trust.with_file(file),
            None => Ok(trust),
        }
    }

    /// Adds the certificates of a file that somebody named on purpose, so that each one must be
    /// usable.
    pub(super) fn with_file(mut self, file: &Path) -> Result<Self, String> {
        store::check(file).map_err(|error| error.to_string())?;
        let loaded = rustls_native_certs::load_certs_from_paths(Some(file), None);
        if let Some(error) = loaded.errors.first() {
            return Err(format!("cannot read the CA certificates in {}: {error}", file.display()));
        }
        if loaded.certs.is_empty() {
            return Err(format!("{} holds no CA certificate in PEM form", file.display()));
        }
        for certificate in loaded.certs {
            self.named.push(certificate.clone());
            self.roots.add(certificate).map_err(|error| {
                format!("{} holds an unusable certificate: {error}", file.display())
            })?;
        }
        Ok(self)
    }

    /// The TLS settings that follow.
    pub(super) fn client_config(self) -> Result<ClientConfig, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        if self.named.is_empty() {
            return Ok(builder.with_root_certificates(self.roots).with_no_client_auth());
        }
        let verifier = Verifier::new(self, provider)?;
        Ok(builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth())
    }
}

/// The usual verification, plus one case that Docker's own instructions for private registries lead
/// to: a self-signed certificate that is both the server's and the CA's. WebPKI refuses a CA
/// certificate as a server's; when the operator named this very certificate, there is nobody left
/// to distrust.
#[derive(Debug)]
struct Verifier {
    usual: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

impl Verifier {
    fn new(trust: Trust, provider: Arc<CryptoProvider>) -> Result<Self, String> {
        let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(trust.roots), provider)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { usual, named: trust.named })
    }
}

/// Whether the only objection is that the server shows a CA's certificate. WebPKI looks at the
/// validity period before it makes this objection.
fn is_ca_as_server(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(CertificateError::Other(other)) if other.0.to_string() == "CaUsedAsEndEntity")
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.usual.verify_server_cert(certificate, intermediates, name, ocsp_response, now) {
            Err(error)
                if is_ca_as_server(&error)
                    && self.named.iter().any(|named| named == certificate) =>
            {
                rustls::client::verify_server_name(
                    &ParsedCertificate::try_from(certificate)?,
                    name,
                )?;
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

/// The CA certificates in a registry's directory: `*.crt`, as Docker reads it.
///
/// # Errors
/// The directory cannot be listed.
pub(super) fn certificate_files(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let names = store::list(directory).map_err(|error| error.to_string())?;
    Ok(names
        .iter()
        .filter(|name| name.ends_with(".crt"))
        .map(|name| directory.join(name))
        .collect())
}

/// A TLS failure in plain words.
pub(super) fn detail(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "its certificate is signed by an authority that this host does not trust".to_owned()
        }
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "its certificate has expired".to_owned(),
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "its certificate is for another name".to_owned(),
        error if is_ca_as_server(error) => {
            "its certificate is a CA's own, which this host does not trust".to_owned()
        }
        Error::InvalidMessage(_) => "it does not speak TLS".to_owned(),
        other => printable(&other.to_string()),
    }
}
