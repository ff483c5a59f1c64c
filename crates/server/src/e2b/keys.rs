//! The credentials of E2B's door: the key of the control plane, made from the token of the TCP door so
//! that there is nothing to store; and what a sandbox's own access token opens. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::{HeaderMap, HeaderName, Method, StatusCode};
use model::access::Action;
use model::principal::Role;
use service::Who;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::query;
use super::refusal::Refusal;

/// Carries the key of the control plane.
pub(crate) const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// Carries the token of one sandbox.
pub(crate) const ACCESS_TOKEN: HeaderName = HeaderName::from_static("x-access-token");
/// Carries the token for the other ports of a sandbox that is not open to everybody.
pub(crate) const TRAFFIC_TOKEN: HeaderName = HeaderName::from_static("e2b-traffic-access-token");

/// What opens the control plane over TCP. Its `Debug` says nothing.
#[derive(Clone)]
pub(crate) struct Keys {
    token: String,
    api_key: String,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(..)")
    }
}

impl Keys {
    pub(crate) fn new(token: &str) -> Self {
        Self {
            token: token.to_owned(),
            api_key: api_key(token),
        }
    }

    /// What lets somebody who has no key send one archive: it names all that is in the path of the request, and
    /// when it ends. The token is at both ends, so that nobody makes a longer one out of it.
    pub(crate) fn upload_signature(&self, upload: &Upload<'_>) -> String {
        let Upload {
            template,
            hash,
            expires_s,
            tenant,
            principal,
        } = upload;
        let token = &self.token;
        let text =
            format!("{token}\n{template}\n{hash}\n{expires_s}\n{tenant}\n{principal}\n{token}");
        digest("upload", &text)
    }

    /// Whether this opens the control plane: the key, or the token that it is made from.
    pub(crate) fn is_key(&self, sent: &[u8]) -> bool {
        same(sent, &self.api_key) | same(sent, &self.token)
    }
}

/// An archive that somebody may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Upload<'a> {
    /// As it is in the path.
    pub(crate) template: &'a str,
    pub(crate) hash: &'a str,
    /// In seconds since 1970.
    pub(crate) expires_s: u64,
    /// Whose it is to be.
    pub(crate) tenant: &'a str,
    /// Who may send it.
    pub(crate) principal: &'a str,
}

impl<'a> Upload<'a> {
    /// What a request is for, and the signature that it has; `None` where it is none of these.
    pub(crate) fn parse(
        method: &Method,
        path: &'a str,
        query: Option<&'a str>,
    ) -> Option<(Upload<'a>, &'a str)> {
        let rest = path.strip_prefix("/templates/")?;
        let (template, hash) = rest.split_once("/files/")?;
        let pairs = query?.split('&').map(|pair| pair.split_once('='));
        let pairs: Vec<(&str, &str)> = pairs.collect::<Option<_>>()?;
        let one = |name: &str| Some(pairs.iter().find(|(key, _)| *key == name)?.1);
        let expires_s = one("expires")?.parse().ok()?;
        let upload = Upload {
            template,
            hash,
            expires_s,
            tenant: one("tenant")?,
            principal: one("principal")?,
        };
        let signature = one("signature")?;
        (*method == Method::PUT).then_some((upload, signature))
    }

    /// Who sends it, where the signature is right; they may do nothing else with it.
    pub(crate) fn who(&self) -> Option<Who> {
        let (tenant, principal) = (self.tenant.parse().ok()?, self.principal.parse().ok()?);
        let (role, action) = (Role::Operator, Action::ProfileWrite);
        Some(Who::only(tenant, principal, role, action))
    }
}

/// The key that E2B's clients are given for a server with this token, or for a key of it: `e2b_` and 40 digits.
#[must_use]
pub fn api_key(token: &str) -> String {
    service::e2b_form(token)
}

/// What opens the other ports of a sandbox that is not open to everybody. Made from its access token, which
/// opens more; it cannot be turned back.
pub(crate) fn traffic_token(access_token: &str) -> String {
    digest("traffic", access_token)
}

fn digest(purpose: &str, access_token: &str) -> String {
    let digest = Sha256::new()
        .chain_update("cofferdam e2b ")
        .chain_update(purpose)
        .chain_update([0])
        .chain_update(access_token)
        .finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compares without telling by its time how much was right.
pub(crate) fn same(sent: &[u8], right: &str) -> bool {
    sent.ct_eq(right.as_bytes()).into()
}

/// # Errors
/// 403, as E2B's proxy says it.
pub(crate) fn check_traffic(access_token: &str, headers: &HeaderMap) -> Result<(), Refusal> {
    let refused = |what| {
        let message = format!(
            "Sandbox is secured with traffic access token. The one in the header '{TRAFFIC_TOKEN}' is {what}"
        );
        Err(Refusal::new(StatusCode::FORBIDDEN, message))
    };
    match headers.get(&TRAFFIC_TOKEN) {
        None => refused("missing"),
        Some(sent) if same(sent.as_bytes(), &traffic_token(access_token)) => Ok(()),
        Some(_) => refused("invalid"),
    }
}

/// # Errors
/// 401, as envd says it.
pub(crate) fn check_access(access_token: &str, headers: &HeaderMap) -> Result<(), Refusal> {
    match headers.get(&ACCESS_TOKEN) {
        Some(sent) if same(sent.as_bytes(), access_token) => Ok(()),
        _ => Err(unauthorized(
            "unauthorized access, please provide a valid access token or method signing if supported",
        )),
    }
}

/// Lets a request for a file in: by the access token of the sandbox, or by a signature made with it.
///
/// # Errors
/// 401 with the texts that the clients' tests look for.
pub(crate) fn check_file(
    access_token: &str,
    headers: &HeaderMap,
    file: &FileQuery,
    now_s: u64,
) -> Result<(), Refusal> {
    if let Some(sent) = headers.get(&ACCESS_TOKEN) {
        if same(sent.as_bytes(), access_token) {
            return Ok(());
        }
        let message = "access token present in header but does not match";
        return Err(unauthorized(message));
    }
    let Some(signature) = &file.signature else {
        return Err(unauthorized("missing signature query parameter"));
    };
    if !same(signature.as_bytes(), &file.signed_with(access_token)) {
        return Err(unauthorized("invalid signature"));
    }
    match file.expires_s() {
        Some(expires_s) if expires_s < now_s => Err(unauthorized("signature is already expired")),
        _ => Ok(()),
    }
}

/// Whether a request for a file that names no sandbox is for the one with this access token.
pub(crate) fn is_of(access_token: &str, headers: &HeaderMap, file: &FileQuery) -> bool {
    match (headers.get(&ACCESS_TOKEN), &file.signature) {
        (Some(sent), _) => same(sent.as_bytes(), access_token),
        (None, Some(signature)) => same(signature.as_bytes(), &file.signed_with(access_token)),
        (None, None) => false,
    }
}

fn unauthorized(message: &str) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, message)
}

/// What a signature is over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FileQuery {
    is_write: bool,
    path: String,
    user: String,
    pub(crate) signature: Option<String>,
    expiration: Option<String>,
}

impl FileQuery {
    /// # Errors
    /// A refusal when the query cannot be read.
    pub(crate) fn parse(method: &Method, text: Option<&str>) -> Result<Self, Refusal> {
        let mut file = Self {
            is_write: *method == Method::POST,
            ..Self::default()
        };
        for (key, value) in query::pairs(text)? {
            match key.as_str() {
                "path" => file.path = value,
                "username" => file.user = value,
                "signature" => file.signature = Some(value),
                "signature_expiration" => file.expiration = Some(value),
                _ => {}
            }
        }
        Ok(file)
    }

    /// When the signature ends, in seconds since 1970. One that cannot be read has ended: the clients
    /// never send such, and it must not be one without an end.
    fn expires_s(&self) -> Option<u64> {
        let text = self.expiration.as_ref()?;
        Some(text.parse().unwrap_or(0))
    }

    fn signed_with(&self, access_token: &str) -> String {
        let operation = if self.is_write { "write" } else { "read" };
        let mut text = format!("{}:{operation}:{}:{access_token}", self.path, self.user);
        if let Some(expiration) = &self.expiration {
            text.push(':');
            text.push_str(expiration);
        }
        format!("v1_{}", STANDARD_NO_PAD.encode(Sha256::digest(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn with(name: HeaderName, value: &str) -> HeaderMap {
        let value = HeaderValue::from_str(value).unwrap();
        HeaderMap::from_iter([(name, value)])
    }

    #[test]
    fn a_key_looks_like_one_of_e2b_and_is_the_tokens() {
        let keys = Keys::new("token");
        let key = api_key("token");
        let digits = key.strip_prefix("e2b_").unwrap();
        assert!(digits.len() == 40 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert!(keys.is_key(key.as_bytes()) && keys.is_key(b"token"));
        let (path, put) = ("/templates/a/files/b", Method::PUT);
        let upload = Upload {
            template: "a",
            hash: "b",
            expires_s: 7,
            tenant: "ten_a",
            principal: "user:b",
        };
        let signed = keys.upload_signature(&upload);
        let query = format!("expires=7&tenant=ten_a&principal=user:b&signature={signed}");
        let parsed = Upload::parse(&put, path, Some(&query));
        assert_eq!(parsed, Some((upload, signed.as_str())));
        let later = Upload {
            expires_s: 8,
            ..upload
        };
        assert_ne!(keys.upload_signature(&later), signed);
        let other = Upload {
            tenant: "ten_b",
            ..upload
        };
        assert_ne!(keys.upload_signature(&other), signed);
        assert_ne!(Keys::new("other").upload_signature(&upload), signed);
        assert_eq!(Upload::parse(&Method::GET, path, Some(&query)), None);
        assert_eq!(Upload::parse(&put, path, None), None);
        for wrong in ["", "e2b_", &api_key("other"), &key[..43], "token2"] {
            assert!(!keys.is_key(wrong.as_bytes()), "{wrong}");
        }
        assert_eq!(format!("{keys:?}"), "Keys(..)");
    }

    #[test]
    fn a_token_opens_its_own_sandbox_and_its_traffic_token_only_the_ports() {
        let check = |sent: &str, access: bool, traffic: bool| {
            let headers = with(ACCESS_TOKEN, sent);
            assert_eq!(check_access("own", &headers).is_ok(), access, "{sent}");
            let headers = with(TRAFFIC_TOKEN, sent);
            assert_eq!(check_traffic("own", &headers).is_ok(), traffic, "{sent}");
        };
        check("own", true, false);
        check(&traffic_token("own"), false, true);
        check(&traffic_token("other"), false, false);
        check("other", false, false);
        check("", false, false);
        assert!(check_access("own", &HeaderMap::new()).is_err());
        assert!(check_traffic("own", &HeaderMap::new()).is_err());
    }

    /// `ok`, or the text of the refusal.
    fn file(method: &Method, query: &str, headers: &HeaderMap) -> String {
        let file = FileQuery::parse(method, Some(query)).unwrap();
        match check_file("own", headers, &file, 1000) {
            Ok(()) => "ok".to_owned(),
            Err(refusal) => refusal.to_string(),
        }
    }

    /// As the SDK computes it.
    fn sign(text: &str) -> String {
        let signature = STANDARD_NO_PAD.encode(Sha256::digest(text));
        let signature = signature.replace('+', "%2B").replace('/', "%2F");
        format!("&signature=v1_{signature}")
    }

    #[test]
    fn a_signature_is_for_one_path_one_way_one_user_and_a_time() {
        let none = HeaderMap::new();
        let read = sign("a/b.txt:read::own");
        let (get, post) = (Method::GET, Method::POST);
        for (method, query, expect) in [
            (&get, format!("path=a/b.txt{read}"), "ok"),
            (&get, format!("path=a%2Fb.txt{read}"), "ok"),
            (
                &post,
                format!("path=a/b.txt{read}"),
                "401 invalid signature",
            ),
            (&get, format!("path=a/c.txt{read}"), "401 invalid signature"),
            (
                &get,
                format!("path=a/b.txt&username=root{read}"),
                "401 invalid signature",
            ),
            (
                &get,
                format!("path=a/b.txt&signature_expiration=2000{read}"),
                "401 invalid signature",
            ),
            (
                &get,
                "path=a/b.txt".to_owned(),
                "401 missing signature query parameter",
            ),
            (
                &post,
                format!("path=x&username=root{}", sign("x:write:root:own")),
                "ok",
            ),
            (
                &get,
                format!(
                    "path=x&signature_expiration=1000{}",
                    sign("x:read::own:1000")
                ),
                "ok",
            ),
            (
                &get,
                format!("path=x&signature_expiration=999{}", sign("x:read::own:999")),
                "401 signature is already expired",
            ),
            (
                &get,
                format!(
                    "path=x&signature_expiration=never{}",
                    sign("x:read::own:never")
                ),
                "401 signature is already expired",
            ),
        ] {
            assert_eq!(file(method, &query, &none), expect, "{method} {query}");
        }
    }

    #[test]
    fn the_token_in_the_header_needs_no_signature() {
        let right = with(ACCESS_TOKEN, "own");
        assert_eq!(file(&Method::GET, "path=x", &right), "ok");
        let wrong = with(ACCESS_TOKEN, "other");
        let expect = "401 access token present in header but does not match";
        assert_eq!(file(&Method::GET, "path=x", &wrong), expect);
    }

    #[test]
    fn a_signature_says_whose_file_it_is() {
        let query = format!("path=x{}", sign("x:read::own"));
        let file = FileQuery::parse(&Method::GET, Some(&query)).unwrap();
        assert!(is_of("own", &HeaderMap::new(), &file));
        assert!(!is_of("other", &HeaderMap::new(), &file));
        let header = with(ACCESS_TOKEN, "other");
        assert!(is_of("other", &header, &file));
        let bare = FileQuery::parse(&Method::GET, Some("path=x")).unwrap();
        assert!(!is_of("own", &HeaderMap::new(), &bare));
    }
}
