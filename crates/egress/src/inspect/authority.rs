//! The authority of one sandbox: what its programs are made to trust, and nobody else does.
//!
//! Its key stays on the node. Whoever steals it can speak for any host to the programs of this one sandbox.

use model::host::Host;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::time::Duration;

const DAY_S: u64 = 24 * 3600;
/// How long the authority lives: longer than any sandbox is extended.
const LIFE_S: u64 = 3650 * DAY_S;
/// How long what it signs lives. It is signed anew long before, whenever it is a month old.
const SIGNED_LIFE_S: u64 = 90 * DAY_S;
/// Both begin earlier than now, because clocks differ.
const SLACK_S: u64 = DAY_S;

/// An authority.
pub struct Authority {
    made_at_s: u64,
    key: KeyPair,
    certificate: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority(..)")
    }
}

/// What separates the parts of a kept authority; no part has it.
const BETWEEN: char = '\u{1f}';

impl Authority {
    /// A new one. `now_s` is in seconds since 1970.
    ///
    /// # Errors
    /// Where no key can be made.
    pub fn make(now_s: u64) -> Result<Authority, rcgen::Error> {
        let key = KeyPair::generate()?;
        let certificate = params(now_s).self_signed(&key)?.pem();
        Ok(Authority {
            made_at_s: now_s,
            key,
            certificate,
        })
    }

    /// All of it as text, its key included, for whoever goes on with its sandbox.
    pub fn to_text(&self) -> String {
        let (made, key) = (self.made_at_s, self.key.serialize_pem());
        format!("{made}{BETWEEN}{key}{BETWEEN}{}", self.certificate)
    }

    /// Reads what [`Authority::to_text`] wrote; `None` for anything else.
    pub fn from_text(text: &str) -> Option<Authority> {
        let mut parts = text.split(BETWEEN);
        let (made, key, certificate) = (parts.next()?, parts.next()?, parts.next()?);
        CertificateDer::from_pem_slice(certificate.as_bytes()).ok()?;
        Some(Authority {
            made_at_s: made.parse().ok()?,
            key: KeyPair::from_pem(key).ok()?,
            certificate: certificate.to_owned(),
        })
    }

    /// What programs are to trust, in PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A certificate for a host, with its key.
    pub(super) fn sign(
        &self,
        host: &Host,
        now_s: u64,
    ) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), rcgen::Error> {
        let issuer = Issuer::new(params(self.made_at_s), &self.key);
        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::default();
        leaf.distinguished_name = DistinguishedName::new();
        leaf.subject_alt_names = vec![match host {
            Host::Name(name) => SanType::DnsName(name.as_str().try_into()?),
            Host::Address(address) => SanType::IpAddress(*address),
        }];
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf.use_authority_key_identifier_extension = true;
        life(&mut leaf, now_s, SIGNED_LIFE_S);
        let certificate = leaf.signed_by(&key, &issuer)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        Ok((certificate.der().clone(), key.into()))
    }
}

/// The same again for the same time, so that nothing has to be read from the certificate.
fn params(made_at_s: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let name = "Cofferdam, for the programs of one sandbox";
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    life(&mut params, made_at_s, LIFE_S);
    params
}

fn life(params: &mut CertificateParams, from_s: u64, life_s: u64) {
    let at = |seconds| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    params.not_before = at(from_s.saturating_sub(SLACK_S));
    params.not_after = at(from_s.saturating_add(life_s));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_the_same_after_it_was_kept() {
        let one = Authority::make(1_800_000_000).unwrap();
        let text = one.to_text();
        let again = Authority::from_text(&text).unwrap();
        assert_eq!(again.to_text(), text);
        assert_eq!(again.certificate(), one.certificate());
        for broken in [
            "",
            "1",
            &text[..text.len() / 3],
            &text[..text.len() - 9],
            "x\u{1f}y\u{1f}z",
        ] {
            assert!(Authority::from_text(broken).is_none(), "{broken}");
        }
        assert_eq!(format!("{one:?}"), "Authority(..)");
    }
}
