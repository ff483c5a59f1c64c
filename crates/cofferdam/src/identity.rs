//! Who a node is: its key, its certificate, and the authority that it believes.
//!
//! The key is on disk before the token is spent, so that a machine that dies while it is enrolled asks again with
//! the same key and becomes the same node. The rest is one file that is there whole or not at all; a renewal
//! replaces it, and until it has, the certificate before it still counts.

use crate::cli::failure::Failure;
use crate::dial::{self, Dialer, Trust};
use crate::node_authority::NODE_LIFE_S;
use crate::private::write_private;
use crate::state::State;
use api::Code;
use api::client::{Client, Endpoint};
use api::fleet::{Hidden, NodeEnroll, NodeEnrolled, NodeRenew};
use model::id::NodeId;
use rcgen::{CertificateParams, KeyPair};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked whether the certificate is to be renewed.
const LOOK: Duration = Duration::from_secs(3600);
/// A certificate is renewed when so much of its life is left: ten days to find out why it does not work.
const RENEW_BEFORE_MS: u64 = NODE_LIFE_S * 1000 / 3;

/// What is on disk.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) node: NodeId,
    /// `https://HOST:PORT` of the door that enrolled it.
    pub(crate) server: String,
    key: String,
    certificate: String,
    authority: String,
    expires_at_ms: u64,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.node)
    }
}

fn file(state: &State) -> PathBuf {
    state.dir().join("identity.json")
}

fn key_file(state: &State) -> PathBuf {
    state.dir().join("enroll.key")
}

impl Identity {
    /// Who this node is, if it was enrolled.
    pub(crate) fn known(state: &State) -> Result<Option<Identity>, Failure> {
        let path = file(state);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| Failure::state(&format!("read `{}`", path.display()), &error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::state(
                &format!("read `{}`", path.display()),
                &error,
            )),
        }
    }

    /// Becomes a node, and writes down which.
    pub(crate) async fn enroll(
        state: &State,
        server: &str,
        token: &str,
        name: &str,
    ) -> Result<Identity, Failure> {
        let pin = pin_of(token)?;
        let key = enroll_key(state)?;
        let dialer = Dialer::new(server, Trust::Pinned(pin.to_owned()), None)?;
        let asked = NodeEnroll {
            token: Hidden(token.to_owned()),
            name: name.to_owned(),
            csr: csr(&key)?,
        };
        let enrolled = client(dialer).node_enroll(&asked).await;
        let enrolled = enrolled.map_err(|error| {
            let hint = dial::remedy(&error);
            let failure = Failure::from(error);
            match hint {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        })?;
        let identity = Identity::of(enrolled, server, &key)?;
        identity.write(state)?;
        // If we die before this, the next enrollment has this key too, which does no harm.
        drop(std::fs::remove_file(key_file(state)));
        Ok(identity)
    }

    fn of(enrolled: NodeEnrolled, server: &str, key: &KeyPair) -> Result<Identity, Failure> {
        let node = enrolled.node_id.parse();
        let wrong = || Failure::new(Code::ProtocolMismatch, "the server named no node");
        Ok(Identity {
            node: node.map_err(|_| wrong())?,
            server: server.to_owned(),
            key: key.serialize_pem(),
            certificate: enrolled.certificate,
            authority: enrolled.authority,
            expires_at_ms: enrolled.expires_at_ms,
        })
    }

    fn write(&self, state: &State) -> Result<(), Failure> {
        let text = serde_json::to_string(self);
        let text = text.map_err(|error| Failure::ours("write who this node is", &error))?;
        write_private(&file(state), &text)
    }

    /// What dials the server as this node.
    #[cfg(test)]
    pub(crate) fn dialer(&self, server: &str) -> Result<Arc<Dialer>, Failure> {
        self.dialer_of(&[server])
    }

    /// What dials one of these servers as this node.
    pub(crate) fn dialer_of(&self, servers: &[&str]) -> Result<Arc<Dialer>, Failure> {
        let trust = Trust::Authority(self.authority.clone());
        let own = (self.certificate.clone(), self.key.clone());
        Dialer::any(servers, trust, Some(own))
    }

    fn is_to_renew(&self, now_ms: u64) -> bool {
        self.expires_at_ms.saturating_sub(now_ms) < RENEW_BEFORE_MS
    }
}

/// A client that dials so.
pub(crate) fn client(dialer: Arc<Dialer>) -> Client {
    Client::new(Endpoint::Dialed {
        authority: dialer.authority().to_owned(),
        dialer,
        token: None,
    })
}

/// Renews the certificate before it ends, again and again. Never returns.
pub(crate) async fn keep_certificate(state: State, mut own: Identity, dialer: Arc<Dialer>) {
    let client = client(dialer.clone());
    loop {
        if own.is_to_renew(service::Clock::system().now_ms()) {
            match renewed(&state, &own, &client).await {
                Ok(new) => {
                    if let Err(failure) = dialer.show(&new.certificate, &new.key) {
                        tracing::error!(%failure, "failed to show the new certificate");
                    }
                    tracing::info!("the certificate of this node was renewed");
                    own = new;
                }
                Err(failure) => tracing::error!(%failure, "failed to renew the certificate"),
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn renewed(state: &State, own: &Identity, client: &Client) -> Result<Identity, Failure> {
    let key = KeyPair::generate().map_err(|error| Failure::ours("make a key", &error))?;
    let enrolled = client.node_renew(&NodeRenew { csr: csr(&key)? }).await?;
    let new = Identity::of(enrolled, &own.server, &key)?;
    new.write(state)?;
    Ok(new)
}

/// Letters of a digest, and of what is secret in a token, in hexadecimal digits.
const DIGITS: usize = 64;

/// Whom an enrollment token names: what comes after its last `_`. One that was cut, or is of another kind, is
/// refused before anybody is dialled who could learn of it.
fn pin_of(token: &str) -> Result<&str, Failure> {
    let is_digits =
        |text: &str| text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts = token
        .strip_prefix("cfn_")
        .and_then(|rest| rest.split_once('_'));
    let pin = parts.filter(|(secret, pin)| is_digits(secret) && is_digits(pin));
    pin.map(|(_, pin)| pin).ok_or_else(|| {
        let message = "what was given is no enrollment token: one is cfn_, 64 digits, _ and 64 digits";
        let failure = Failure::new(Code::InvalidArgument, message);
        failure.hint(
            "copy all of what `cofferdam node enroll-token` printed into COFFERDAM_TOKEN; the token of the \
             state directory is another",
        )
    })
}

/// The key of an enrollment, made once.
fn enroll_key(state: &State) -> Result<KeyPair, Failure> {
    let path = key_file(state);
    if let Ok(text) = std::fs::read_to_string(&path)
        && let Ok(key) = KeyPair::from_pem(&text)
    {
        return Ok(key);
    }
    let key = KeyPair::generate().map_err(|error| Failure::ours("make a key", &error))?;
    write_private(&path, &key.serialize_pem())?;
    Ok(key)
}

fn csr(key: &KeyPair) -> Result<String, Failure> {
    let asked = CertificateParams::default().serialize_request(key);
    let text = asked.and_then(|asked| asked.pem());
    text.map_err(|error| Failure::ours("ask for a certificate", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 24 * 3600 * 1000;

    fn until(expires_at_ms: u64) -> Identity {
        Identity {
            node: NodeId::from_parts(0, [0; 10]),
            server: String::new(),
            key: String::new(),
            certificate: String::new(),
            authority: String::new(),
            expires_at_ms,
        }
    }

    #[test]
    fn a_certificate_is_to_be_renewed_when_less_than_ten_days_are_left() {
        let now_ms = 20_000 * DAY_MS;
        for (left_ms, expect) in [
            (30 * DAY_MS, false),
            (10 * DAY_MS + 1, false),
            (10 * DAY_MS, false),
            (10 * DAY_MS - 1, true),
            (9 * DAY_MS, true),
            (1, true),
            (0, true),
        ] {
            let own = until(now_ms + left_ms);
            assert_eq!(own.is_to_renew(now_ms), expect, "{left_ms} ms are left");
        }
        // It is over, and by a clock that is nowhere.
        assert!(until(now_ms).is_to_renew(now_ms + 1));
        assert!(until(now_ms).is_to_renew(u64::MAX));
        assert!(!until(u64::MAX).is_to_renew(0));
    }

    #[test]
    fn what_is_no_enrollment_token_is_refused_before_anybody_is_dialled() {
        let (one, two) = ("0123456789abcdef".repeat(4), "fedcba9876543210".repeat(4));
        let whole = format!("cfn_{one}_{two}");
        assert_eq!(pin_of(&whole).unwrap(), two);
        let cut = whole.get(..whole.len() - 1).unwrap();
        let longer = format!("{whole}0");
        let state_token = "a".repeat(64);
        for wrong in ["", "garbage", "cfn_", cut, &longer, &state_token] {
            let refused = pin_of(wrong).unwrap_err().to_string();
            assert!(
                refused.contains("no enrollment token"),
                "{wrong}: {refused}"
            );
            // What all tokens begin with is none.
            assert!(
                wrong.len() <= 4 || !refused.contains(wrong),
                "it is a secret"
            );
        }
    }
}
