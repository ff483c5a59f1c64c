//! The authority of a fleet: it signs the certificates of nodes, and the one that the door of nodes shows.
//!
//! Its key is in a file of the server's state directory, for this user alone; replicas are given a copy. What it
//! signs for a node can be a client and nothing else, and counts only as long as the database says so; what it
//! signs for the door can be a server and nothing else. So a node cannot pass for the server.

use crate::cli::failure::Failure;
use crate::private::write_private;
use model::id::{NodeId, ServerId};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _,
    SanType,
};
use serde::{Deserialize, Serialize};
use service::{BadCsr, NodeAuthority, NodeSigned};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

const DAY_S: u64 = 24 * 3600;
/// How long the authority lives: nodes are told of a new one only when they are enrolled anew.
const LIFE_S: u64 = 3650 * DAY_S;
/// How long a certificate of a node counts. It is renewed after two thirds.
pub(crate) const NODE_LIFE_S: u64 = 30 * DAY_S;
/// How long what the door shows lives. It is signed anew at each start, and each month.
const DOOR_LIFE_S: u64 = 90 * DAY_S;
/// All begin earlier than now, for machines whose clock is behind ours.
const SLACK_S: u64 = DAY_S;

/// What is on disk, in one file, so that it is there whole or not at all.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Authority {
    made_at_s: u64,
    key: String,
    certificate: String,
    fingerprint: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({})", self.fingerprint)
    }
}

/// A chain and its key, in PEM.
pub(crate) struct Signed {
    pub(crate) chain: String,
    pub(crate) key: String,
}

/// With what a server asks others.
#[derive(Clone)]
pub(crate) struct ServerSigned {
    pub(crate) certificate: String,
    pub(crate) key: String,
    pub(crate) fingerprint: String,
}

/// The name that a server shows others, whatever address they dial: it is in the certificate of its door.
pub(crate) fn peer_name(id: &ServerId) -> String {
    let digits = id.as_str().strip_prefix(ServerId::PREFIX);
    format!("{}.server.cofferdam.internal", digits.unwrap_or_default())
}

impl Authority {
    /// The one in this file; a new one where there is none. One that cannot be read is not replaced: all
    /// nodes believe it and no other.
    pub(crate) fn open(path: &Path, now_s: u64) -> Result<Authority, Failure> {
        match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| Failure::state(&format!("read `{}`", path.display()), &error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let made =
                    make(now_s).map_err(|error| Failure::ours("make an authority", &error))?;
                let text = serde_json::to_string(&made);
                let text = text.map_err(|error| Failure::ours("write an authority", &error))?;
                write_private(path, &text)?;
                Ok(made)
            }
            Err(error) => Err(Failure::state(
                &format!("read `{}`", path.display()),
                &error,
            )),
        }
    }

    /// What the service signs nodes with.
    pub(crate) fn for_nodes(&self) -> NodeAuthority {
        let own = self.clone();
        NodeAuthority {
            certificate: self.certificate.clone(),
            fingerprint: self.fingerprint.clone(),
            sign: Box::new(move |csr, node, now_ms| own.sign_node(csr, node, now_ms / 1000)),
        }
    }

    /// Signs the key of a request, which has to be signed with it itself. Nothing else of it counts: it would
    /// be the node that said who it is.
    fn sign_node(&self, csr: &str, node: &NodeId, now_s: u64) -> Result<NodeSigned, BadCsr> {
        let asked = CertificateSigningRequestParams::from_pem(csr).map_err(|_| BadCsr)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(node.as_str());
        let uri = format!("cofferdam://node/{node}").try_into();
        params.subject_alt_names = vec![SanType::URI(uri.map_err(|_| BadCsr)?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        life(&mut params, now_s, NODE_LIFE_S);
        let issuer = self.issuer().map_err(|_| BadCsr)?;
        let signed = params.signed_by(&asked.public_key, &issuer);
        let signed = signed.map_err(|_| BadCsr)?;
        Ok(NodeSigned {
            certificate: signed.pem(),
            fingerprint: digest(signed.der()),
            key_digest: digest(asked.public_key.der_bytes()),
            expires_at_ms: now_s.saturating_add(NODE_LIFE_S).saturating_mul(1000),
        })
    }

    /// A new key, and a certificate for the door by these names; the authority's own comes with it, so that
    /// a machine with a token finds what the token names.
    pub(crate) fn sign_door(&self, names: &[String], now_s: u64) -> Result<Signed, Failure> {
        let signed = self.try_sign_door(names, now_s);
        signed.map_err(|error| Failure::ours("sign a certificate for the door of nodes", &error))
    }

    fn try_sign_door(&self, names: &[String], now_s: u64) -> Result<Signed, rcgen::Error> {
        let key = KeyPair::generate()?;
        // Addresses among the names become addresses.
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name = named("Cofferdam, for nodes");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        life(&mut params, now_s, DOOR_LIFE_S);
        let signed = params.signed_by(&key, &self.issuer()?)?;
        Ok(Signed {
            chain: format!("{}{}", signed.pem(), self.certificate),
            key: key.serialize_pem(),
        })
    }

    /// A new key, and a certificate with which this server asks others. It can be a client and nothing else, and
    /// counts as long as it is in the table of servers.
    pub(crate) fn sign_server(&self, id: &ServerId, now_s: u64) -> Result<ServerSigned, Failure> {
        let signed = self.try_sign_server(id, now_s);
        signed.map_err(|error| Failure::ours("sign the certificate of this server", &error))
    }

    fn try_sign_server(&self, id: &ServerId, now_s: u64) -> Result<ServerSigned, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(id.as_str());
        let uri = format!("cofferdam://server/{id}").try_into()?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        life(&mut params, now_s, DOOR_LIFE_S);
        let signed = params.signed_by(&key, &self.issuer()?)?;
        Ok(ServerSigned {
            fingerprint: digest(signed.der()),
            certificate: signed.pem(),
            key: key.serialize_pem(),
        })
    }

    /// What all servers of a fleet have alike.
    pub(crate) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Its certificate, in PEM.
    pub(crate) fn certificate(&self) -> &str {
        &self.certificate
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, rcgen::Error> {
        let key = KeyPair::from_pem(&self.key)?;
        Ok(Issuer::new(own_params(self.made_at_s), key))
    }
}

fn make(now_s: u64) -> Result<Authority, rcgen::Error> {
    let key = KeyPair::generate()?;
    let certificate = own_params(now_s).self_signed(&key)?;
    Ok(Authority {
        made_at_s: now_s,
        key: key.serialize_pem(),
        fingerprint: digest(certificate.der()),
        certificate: certificate.pem(),
    })
}

/// The same again for the same time, so that nothing has to be read from the certificate.
fn own_params(made_at_s: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("Cofferdam fleet");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    life(&mut params, made_at_s, LIFE_S);
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn life(params: &mut CertificateParams, from_s: u64, life_s: u64) {
    let at = |seconds| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    params.not_before = at(from_s.saturating_sub(SLACK_S));
    params.not_after = at(from_s.saturating_add(life_s));
}

/// SHA-256, in hexadecimal digits.
pub(crate) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |mut text, byte| {
            // Writing to a String does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: u64 = 1_790_000_000;

    fn csr() -> (KeyPair, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["control.example".to_owned()]).unwrap();
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        (key, pem)
    }

    #[test]
    fn an_authority_is_made_once_and_a_broken_one_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("authority.json");
        let first = Authority::open(&path, NOW_S).unwrap();
        let again = Authority::open(&path, NOW_S + 1).unwrap();
        assert_eq!(first.certificate, again.certificate);
        std::fs::write(&path, "{").unwrap();
        assert!(Authority::open(&path, NOW_S).is_err());
    }

    #[test]
    fn what_a_request_says_of_itself_does_not_count() {
        let authority = make(NOW_S).unwrap();
        let (_key, pem) = csr();
        let node = NodeId::from_parts(1, [1; 10]);
        let signed = authority.sign_node(&pem, &node, NOW_S).unwrap();
        let text = format!("{signed:?}");
        let again = authority.sign_node(&pem, &node, NOW_S).unwrap();
        assert_eq!(signed.key_digest, again.key_digest);
        let der = pem_der(&signed.certificate);
        let holds = |part: &[u8]| der.windows(part.len()).any(|window| window == part);
        assert!(
            holds(node.as_str().as_bytes()) && !holds(b"control.example"),
            "{text}"
        );
    }

    #[test]
    fn what_is_no_request_or_not_signed_with_its_key_is_refused() {
        let authority = make(NOW_S).unwrap();
        let node = NodeId::from_parts(1, [1; 10]);
        let refused = |pem: &str| authority.sign_node(pem, &node, NOW_S) == Err(BadCsr);
        let (_key, pem) = csr();
        assert!(refused("") && refused("-----BEGIN") && refused(&authority.certificate));
        let mut der = pem_der(&pem);
        // The signature is at the end.
        *der.last_mut().unwrap() ^= 1;
        let broken = rustls::pki_types::CertificateSigningRequestDer::from(der);
        let params = CertificateSigningRequestParams::from_der(&broken);
        assert!(params.is_err(), "a request that another key signed");
    }

    fn pem_der(pem: &str) -> Vec<u8> {
        use rustls::pki_types::pem::PemObject as _;
        let certificate = rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes());
        let as_certificate = certificate.map(|der| der.to_vec());
        as_certificate.unwrap_or_else(|_| {
            let csr =
                rustls::pki_types::CertificateSigningRequestDer::from_pem_slice(pem.as_bytes());
            csr.unwrap().to_vec()
        })
    }
}
