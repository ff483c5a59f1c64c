//! The authority of `up --tls self`: a certificate that clients are told to trust, whose key signs the one
//! that the port shows.
//!
//! It is kept in the state directory, for this user alone, because clients trust it by name of a file and
//! must not have to be told again at each start. What it signs is made anew whenever it is needed and is
//! never on disk. It can speak for the domain and for this machine and for nobody else, so that whoever
//! steals its key from somebody who trusts it gets no other name.

use crate::cli::failure::Failure;
use crate::private::{private_dir, write_private};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType,
};
use serde::{Deserialize, Serialize};
use server::Domain;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

const DAY_S: u64 = 24 * 3600;
/// How long the authority lives. A new one has to be told to clients that run.
const LIFE_S: u64 = 3650 * DAY_S;
/// How long what it signs lives, at most; a start signs anew, and so does every month.
const SIGNED_LIFE_S: u64 = 90 * DAY_S;
/// From this age on, a signature is made anew: two thirds are left for whoever could not.
pub(crate) const SIGNED_FRESH_S: u64 = 30 * DAY_S;
/// Both begin earlier than now, for clients whose clock is behind ours.
const SLACK_S: u64 = DAY_S;
/// What clients trust.
#[derive(Debug)]
pub(crate) struct Authority {
    domain: Domain,
    kept: Kept,
}

/// What is on disk, in one file, so that it is there whole or not at all.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    made_at_s: u64,
    key: String,
    certificate: String,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kept(..)")
    }
}

/// A certificate chain and its key, in PEM.
#[derive(Clone)]
pub(crate) struct Signed {
    pub(crate) chain: String,
    pub(crate) key: String,
}

/// The certificate that Node is told to trust beside its own.
pub(crate) fn certificate_file(dir: &Path) -> PathBuf {
    dir.join("ca.pem")
}

/// The same and those that this machine trusts, for clients that trust one file and nothing else: a
/// program that uses a sandbox may also call somebody else.
pub(crate) fn trust_file(dir: &Path) -> PathBuf {
    dir.join("trust.pem")
}

impl Authority {
    /// The one that is kept in this directory; a new one where there is none, or none that lives for long
    /// enough.
    pub(crate) fn open(dir: &Path, domain: &Domain, now_s: u64) -> Result<Authority, Failure> {
        private_dir(dir)?;
        let path = dir.join("authority.json");
        let known = std::fs::read(&path).ok();
        let known = known.and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
        let kept = match known.filter(|kept| kept.lives(now_s)) {
            Some(kept) => kept,
            None => {
                let kept =
                    make(domain, now_s).map_err(|error| Failure::ours("make a CA", &error))?;
                let text = serde_json::to_string(&kept);
                let text = text.map_err(|error| Failure::ours("write a CA", &error))?;
                write_private(&path, &text)?;
                kept
            }
        };
        // If the process died before these, the next start writes them.
        write_private(&certificate_file(dir), &kept.certificate)?;
        let system = node::roots::system();
        let system =
            system.map_err(|error| Failure::state("read what this machine trusts", &error))?;
        let all = format!("{}{system}", kept.certificate);
        write_private(&trust_file(dir), &all)?;
        let domain = domain.clone();
        Ok(Authority { domain, kept })
    }

    /// A new key and a certificate for the domain, for all names below it, and for this machine.
    pub(crate) fn sign(&self, now_s: u64) -> Result<Signed, Failure> {
        self.try_sign(now_s)
            .map_err(|error| Failure::ours("sign a certificate", &error))
    }

    fn try_sign(&self, now_s: u64) -> Result<Signed, rcgen::Error> {
        let domain = self.domain.name();
        let own_key = KeyPair::from_pem(&self.kept.key)?;
        let issuer = Issuer::new(authority_params(domain, self.kept.made_at_s), own_key);
        let key = KeyPair::generate()?;
        let names = [
            domain.to_owned(),
            format!("*.{domain}"),
            "localhost".to_owned(),
        ];
        let mut params = CertificateParams::new(names)?;
        for address in [
            IpAddr::from(Ipv4Addr::LOCALHOST),
            Ipv6Addr::LOCALHOST.into(),
        ] {
            params.subject_alt_names.push(SanType::IpAddress(address));
        }
        params
            .distinguished_name
            .push(DnType::CommonName, "Cofferdam");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        life(&mut params, now_s, SIGNED_LIFE_S);
        let certificate = params.signed_by(&key, &issuer)?;
        Ok(Signed {
            chain: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

impl Kept {
    /// One from the future is of a clock that was wrong.
    fn lives(&self, now_s: u64) -> bool {
        let begins = self.made_at_s.saturating_sub(SLACK_S);
        let ends = self.made_at_s.saturating_add(LIFE_S);
        begins <= now_s && now_s.saturating_add(SIGNED_LIFE_S) < ends
    }
}

fn make(domain: &Domain, now_s: u64) -> Result<Kept, rcgen::Error> {
    let key = KeyPair::generate()?;
    let certificate = authority_params(domain.name(), now_s).self_signed(&key)?;
    Ok(Kept {
        made_at_s: now_s,
        key: key.serialize_pem(),
        certificate: certificate.pem(),
    })
}

/// The same again for the same domain and time, so that nothing has to be read from the certificate.
fn authority_params(domain: &str, made_at_s: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let name = format!("Cofferdam on this machine, for {domain}");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![
            GeneralSubtree::DnsName(domain.to_owned()),
            GeneralSubtree::DnsName("localhost".to_owned()),
            GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([127, 0, 0, 0], 8)),
            GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix(
                Ipv6Addr::LOCALHOST.octets(),
                128,
            )),
        ],
        excluded_subtrees: Vec::new(),
    });
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
    use server::Tls;
    use std::os::unix::fs::PermissionsExt as _;

    const NOW_S: u64 = 1_790_000_000;

    fn domain(text: &str) -> Domain {
        text.parse().unwrap()
    }

    #[test]
    fn an_authority_is_made_once_and_is_for_this_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("tls");
        let own = domain("sbx.localhost");
        let first = Authority::open(&dir, &own, NOW_S).unwrap();
        let again = Authority::open(&dir, &own, NOW_S + 9 * 365 * DAY_S).unwrap();
        assert_eq!(first.kept.certificate, again.kept.certificate);
        for file in std::fs::read_dir(&dir).unwrap() {
            let mode = file.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let trusted = std::fs::read_to_string(trust_file(&dir)).unwrap();
        assert!(trusted.starts_with(&first.kept.certificate));
        assert_eq!(format!("{:?}", first.kept), "Kept(..)");
    }

    #[test]
    fn one_that_would_not_outlive_what_it_signs_is_replaced_and_so_is_a_broken_one() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("tls");
        let open = |now_s| Authority::open(&dir, &domain("sbx.localhost"), now_s).unwrap();
        let first = open(NOW_S);
        let late = NOW_S + LIFE_S - SIGNED_LIFE_S;
        assert!(first.kept.lives(late - 1) && !first.kept.lives(late));
        assert!(
            !first.kept.lives(NOW_S - 2 * SLACK_S),
            "a clock that was wrong"
        );
        let second = open(late);
        assert_ne!(first.kept.certificate, second.kept.certificate);
        std::fs::write(dir.join("authority.json"), "{").unwrap();
        assert_ne!(open(late).kept.certificate, second.kept.certificate);
    }

    #[test]
    fn what_it_signs_is_for_its_domain() {
        let dir = tempfile::tempdir().unwrap();
        let own = domain("sbx.example");
        let authority = Authority::open(&dir.path().join("tls"), &own, NOW_S).unwrap();
        let signed = authority.sign(NOW_S).unwrap();
        let (chain, key) = (signed.chain.as_bytes(), signed.key.as_bytes());
        assert!(Tls::new(&own, chain, key).is_ok());
        let refusal = |domain, chain, key| Tls::new(domain, chain, key).unwrap_err().to_string();
        let other = domain("other.example");
        assert!(refusal(&other, chain, key).contains("*.other.example"));
        let another = authority.sign(NOW_S).unwrap();
        assert!(refusal(&own, chain, another.key.as_bytes()).contains("the key"));
        assert!(refusal(&own, b"", key).contains("certificates"));
        assert!(refusal(&own, chain, b"").contains("private key"));
    }
}
