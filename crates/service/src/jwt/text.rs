//! The text of a token: JWS in its compact form (RFC 7515, 7519), and nothing else that looks like it.

use super::json::object;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// The longest token. Those of providers that list somebody's groups have some KiB.
pub const JWT_BYTES_MAX: usize = 8 * 1024;
/// The longest name of a key.
pub(super) const KID_BYTES_MAX: usize = 256;

/// How a token is signed. It belongs to a key; what a token says of it only chooses among the keys of its issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// HMAC with SHA-256 and a secret that both sides have.
    Hs256,
    /// RSA with PKCS #1 v1.5 and SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Algorithm; 4] = [
        Algorithm::Hs256,
        Algorithm::Rs256,
        Algorithm::Es256,
        Algorithm::EdDsa,
    ];

    /// As RFC 7518 and 8037 write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::Hs256 => "HS256",
            Algorithm::Rs256 => "RS256",
            Algorithm::Es256 => "ES256",
            Algorithm::EdDsa => "EdDSA",
        }
    }

    /// The one of this name. There is none of the name `none`.
    pub fn parse(text: &str) -> Option<Algorithm> {
        let mut all = Algorithm::ALL.into_iter();
        all.find(|algorithm| algorithm.as_str() == text)
    }
}

/// A token that could be read. Nothing in it is believed yet.
#[derive(Debug)]
pub(super) struct Parsed<'t> {
    /// How it says to be signed.
    pub(super) algorithm: Algorithm,
    /// Which key it names.
    pub(super) kid: Option<String>,
    /// What it says.
    pub(super) claims: Map<String, Value>,
    /// What the signature is over.
    pub(super) signed: &'t [u8],
    pub(super) signature: Vec<u8>,
}

/// Whether a text looks like a token: one that does not is not read.
pub fn is_jwt_text(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let dots = text.bytes().filter(|byte| *byte == b'.').count();
    // An object begins so in base64, and no key of ours does.
    text.starts_with("ey") && dots == 2 && text.len() <= JWT_BYTES_MAX && text.bytes().all(plain)
}

/// Members of a header that would change what the rest means: what they ask for is done nowhere here, and a program
/// that leaves them out believes something else than was signed.
const REFUSED: [&str; 4] = ["crit", "b64", "enc", "zip"];

/// Reads a token. The reason why it cannot is told to nobody: it would be of use only to who tries.
///
/// Keys that a header brings along or points to (`jwk`, `jku`, `x5c`, `x5u`) are not looked at.
pub(super) fn parse(text: &str) -> Option<Parsed<'_>> {
    if !is_jwt_text(text) {
        return None;
    }
    let (signed, signature) = text.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    // Refuses padding, and bits behind the end: a token has one text.
    let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
    let header = object(&bytes(header)?)?;
    if REFUSED.iter().any(|name| header.contains_key(*name)) || !is_typ(&header) {
        return None;
    }
    let signature = bytes(signature)?;
    if signature.is_empty() {
        return None;
    }
    Some(Parsed {
        algorithm: Algorithm::parse(header.get("alg")?.as_str()?)?,
        kid: kid(&header)?,
        claims: object(&bytes(claims)?)?,
        signed: signed.as_bytes(),
        signature,
    })
}

/// Nothing, or one of the two types of which a token may be; and not a token in a token.
fn is_typ(header: &Map<String, Value>) -> bool {
    let typ = match header.get("typ") {
        None => true,
        Some(Value::String(typ)) => {
            let typ = typ.to_ascii_lowercase();
            let typ = typ.strip_prefix("application/").unwrap_or(&typ);
            typ == "jwt" || typ == "at+jwt"
        }
        Some(_) => false,
    };
    typ && !header.contains_key("cty")
}

/// `None` when it is none; `Some(None)` when none is named.
#[expect(
    clippy::option_option,
    reason = "the outer one is that of the whole header"
)]
fn kid(header: &Map<String, Value>) -> Option<Option<String>> {
    match header.get("kid") {
        None => Some(None),
        Some(Value::String(kid)) if kid.len() <= KID_BYTES_MAX => Some(Some(kid.clone())),
        Some(_) => None,
    }
}
