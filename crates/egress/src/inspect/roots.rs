//! Whom this machine trusts outside.

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

/// The certificates that a machine trusts have some 200 KiB.
const BYTES_MAX: u64 = 4 << 20;

/// Where systems keep them: Debian and Alpine, Fedora, SUSE, and the name that BSD and macOS have.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Authorities, whose certificates are believed.
#[derive(Debug, Clone)]
pub struct Roots(pub(super) Arc<RootCertStore>);

impl Roots {
    /// These, in PEM. What cannot be read is passed over, as every program does with a system's list.
    pub fn of_pem(text: &str) -> Roots {
        let certificates = CertificateDer::pem_slice_iter(text.as_bytes());
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(certificates.filter_map(Result::ok));
        Roots(Arc::new(store))
    }

    pub(crate) fn store(&self) -> Arc<RootCertStore> {
        self.0.clone()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// What this machine trusts, in PEM; nothing where that is nowhere to be found.
///
/// # Errors
/// Where it is found and cannot be read.
pub fn system() -> io::Result<String> {
    let mut found = SYSTEM.iter().map(Path::new).filter(|path| path.exists());
    found.next().map_or(Ok(String::new()), file)
}

/// Certificates in a file, in PEM, 4 MiB at most.
///
/// # Errors
/// Where it cannot be read.
pub fn file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(BYTES_MAX)
        .read_to_string(&mut text)?;
    Ok(text)
}
