//! Keys of an issuer, and whether one of them has signed (RFC 7517, 7518).
//!
//! The signatures are checked by aws-lc-rs, which TLS uses too. What a library for tokens would add to it is the
//! reading of headers and claims, which is done more strictly here than those do it.

use super::json::object;
use super::text::{Algorithm, KID_BYTES_MAX, Parsed};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// The longest set of keys, as text.
pub const JWKS_BYTES_MAX: usize = 256 * 1024;
/// Keys of one issuer.
const KEYS_MAX: usize = 100;
/// A shorter secret can be found by trying (RFC 7518, section 3.2).
const SECRET_BYTES_MIN: usize = 32;
/// Longer ones are somebody's mistake.
const SECRET_BYTES_MAX: usize = 1024;

/// Keys of one issuer.
#[derive(Debug)]
pub struct JwtKeys(Vec<Key>);

struct Key {
    kid: Option<String>,
    algorithm: Algorithm,
    lock: Lock,
}

enum Lock {
    Public(ParsedPublicKey),
    Secret(Box<hmac::Key>),
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({:?})", self.algorithm)
    }
}

/// Keys that cannot be used. Nothing of them is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadKeys {
    /// Longer than any.
    #[error("it has more than {JWKS_BYTES_MAX} bytes")]
    TooLong,
    /// More than any issuer has.
    #[error("it has more than {KEYS_MAX} keys")]
    TooMany,
    /// Something else.
    #[error("it is no set of keys: an object with `keys`, in which no name stands twice")]
    NoSet,
    /// None that counts.
    #[error("it has no key for one of the algorithms that this issuer may use")]
    NoKey,
    /// A secret of another length.
    #[error("a secret has {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes")]
    Secret,
}

impl JwtKeys {
    /// Reads a set of public keys. What is in it and is not for signatures by one of these algorithms is left out, and so is a secret:
    /// a set is published.
    ///
    /// # Errors
    /// [`BadKeys`].
    pub fn parse(text: &[u8], algorithms: &[Algorithm]) -> Result<JwtKeys, BadKeys> {
        if text.len() > JWKS_BYTES_MAX {
            return Err(BadKeys::TooLong);
        }
        let set = object(text).ok_or(BadKeys::NoSet)?;
        let keys = set.get("keys").and_then(Value::as_array);
        let keys = keys.ok_or(BadKeys::NoSet)?;
        if keys.len() > KEYS_MAX {
            return Err(BadKeys::TooMany);
        }
        let mut all: Vec<Key> = Vec::new();
        for key in keys.iter().filter_map(|key| public(key.as_object()?)) {
            let is_new = !all
                .iter()
                .any(|one| (&one.kid, one.algorithm) == (&key.kid, key.algorithm));
            if is_new && algorithms.contains(&key.algorithm) {
                all.push(key);
            }
        }
        match all.is_empty() {
            true => Err(BadKeys::NoKey),
            false => Ok(JwtKeys(all)),
        }
    }

    /// The one key that is a secret.
    ///
    /// # Errors
    /// [`BadKeys::Secret`] for one that is too short or too long.
    pub fn secret(bytes: &[u8]) -> Result<JwtKeys, BadKeys> {
        if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&bytes.len()) {
            return Err(BadKeys::Secret);
        }
        Ok(JwtKeys(vec![Key {
            kid: None,
            algorithm: Algorithm::Hs256,
            lock: Lock::Secret(Box::new(hmac::Key::new(hmac::HMAC_SHA256, bytes))),
        }]))
    }

    /// The key that a token names: of its algorithm and its name. A key without a name counts where it is the only one
    /// of its algorithm, and a token without one takes the only key of its algorithm.
    fn named(&self, algorithm: Algorithm, kid: Option<&str>) -> Option<&Key> {
        let mut of = self.0.iter().filter(|key| key.algorithm == algorithm);
        let (first, second) = (of.next(), of.next());
        let only = first.filter(|_| second.is_none());
        let Some(kid) = kid else { return only };
        let mut all = self.0.iter();
        let named = all.find(|key| key.algorithm == algorithm && key.kid.as_deref() == Some(kid));
        named.or_else(|| only.filter(|key| key.kid.is_none()))
    }

    /// Whether a key of these is named.
    pub(super) fn has(&self, token: &Parsed<'_>) -> bool {
        self.named(token.algorithm, token.kid.as_deref()).is_some()
    }

    /// Whether the key that is named has signed it.
    pub(super) fn signed(&self, token: &Parsed<'_>) -> bool {
        let Some(key) = self.named(token.algorithm, token.kid.as_deref()) else {
            return false;
        };
        match &key.lock {
            Lock::Public(public) => public.verify_sig(token.signed, &token.signature).is_ok(),
            // Compares in constant time.
            Lock::Secret(secret) => hmac::verify(secret, token.signed, &token.signature).is_ok(),
        }
    }
}

fn text<'k>(key: &'k Map<String, Value>, name: &str) -> Option<&'k str> {
    key.get(name)?.as_str()
}

fn bytes(key: &Map<String, Value>, name: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text(key, name)?).ok()
}

/// A public key for signatures, if it is one that is known here.
fn public(key: &Map<String, Value>) -> Option<Key> {
    let kid = match key.get("kid") {
        None => None,
        Some(kid) => Some(
            kid.as_str()
                .filter(|kid| kid.len() <= KID_BYTES_MAX)?
                .to_owned(),
        ),
    };
    let is_for = |name: &str, wanted: &str| match key.get(name) {
        None => true,
        Some(Value::Array(all)) => all.iter().any(|one| one == wanted),
        Some(one) => one == wanted,
    };
    if !is_for("use", "sig") || !is_for("key_ops", "verify") {
        return None;
    }
    let (algorithm, public) = match text(key, "kty")? {
        "RSA" => {
            let (n, e) = (bytes(key, "n")?, bytes(key, "e")?);
            let parts = RsaPublicKeyComponents { n, e };
            let public = parts.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256);
            (Algorithm::Rs256, public.ok()?)
        }
        "EC" if text(key, "crv")? == "P-256" => {
            let (x, y) = (bytes(key, "x")?, bytes(key, "y")?);
            if x.len() != 32 || y.len() != 32 {
                return None;
            }
            let point = [&[4], x.as_slice(), &y].concat();
            let public = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
            (Algorithm::Es256, public.ok()?)
        }
        "OKP" if text(key, "crv")? == "Ed25519" => {
            let public = ParsedPublicKey::new(&ED25519, bytes(key, "x")?);
            (Algorithm::EdDsa, public.ok()?)
        }
        _ => return None,
    };
    is_for("alg", algorithm.as_str()).then_some(Key {
        kid,
        algorithm,
        lock: Lock::Public(public),
    })
}
