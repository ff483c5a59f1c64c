//! A provider of identities on loopback: discovery, keys, and logins with a code (RFC 8628), signed for real.

use crate::sign::{Signer, base64};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

/// What a provider says next, and what was asked of it.
pub(crate) struct Told {
    /// Its own name, if it lies about it.
    pub(crate) issuer: Option<String>,
    /// How often it still says that the person has not come.
    pub(crate) pending: u32,
    pub(crate) says_no: bool,
    pub(crate) sub: String,
    /// Of the next tokens, in seconds.
    pub(crate) life_s: u64,
    /// What it says of how long the access token lives, where that is not as long as the other one.
    pub(crate) access_life_s: Option<u64>,
    /// What was asked: a path with a body.
    pub(crate) asked: Vec<String>,
    /// Of the verifier with which a code may be shown.
    pub(crate) challenge: String,
    /// The refresh token that counts: each counts once.
    refresh: u32,
}

#[derive(Clone)]
pub(crate) struct Provider {
    pub(crate) url: String,
    pub(crate) signer: Signer,
    pub(crate) told: Arc<Mutex<Told>>,
}

#[expect(
    clippy::disallowed_methods,
    reason = "its tokens are for a server with the real clock"
)]
pub(crate) fn now_s() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_secs()
}

impl Provider {
    pub(crate) fn start() -> Provider {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let provider = Provider {
            url: format!("http://{}", listener.local_addr().unwrap()),
            signer: Signer::rsa(0),
            told: Arc::new(Mutex::new(Told {
                issuer: None,
                pending: 1,
                says_no: false,
                sub: "alice".to_owned(),
                life_s: 600,
                access_life_s: None,
                asked: Vec::new(),
                challenge: String::new(),
                refresh: 0,
            })),
        };
        let serving = provider.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Whoever hangs up is not answered.
                drop(serving.answer(stream));
            }
        });
        provider
    }

    /// A token of this provider for somebody.
    pub(crate) fn token(&self, sub: &str, life_s: u64) -> String {
        let claims = json!({
            "iss": self.url, "aud": "cofferdam-cli", "sub": sub,
            "iat": now_s(), "exp": now_s() + life_s,
        });
        let header = json!({"alg": "RS256", "typ": "JWT", "kid": "k1"});
        self.signer.token(&header, &claims.to_string())
    }

    pub(crate) fn was_asked(&self, for_what: &str) -> bool {
        self.asked(for_what) > 0
    }

    /// How often it was asked for something.
    pub(crate) fn asked(&self, for_what: &str) -> usize {
        let told = self.told.lock().unwrap();
        let asked = told.asked.iter();
        asked.filter(|one| one.contains(for_what)).count()
    }

    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut text = Vec::new();
        let mut piece = [0; 4096];
        let (head, body) = loop {
            let read = stream.read(&mut piece)?;
            text.extend_from_slice(&piece[..read]);
            let whole = String::from_utf8_lossy(&text).into_owned();
            let Some((head, body)) = whole.split_once("\r\n\r\n") else {
                continue;
            };
            let length = head
                .lines()
                .filter_map(|line| line.split_once(": "))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .map_or(0, |(_, length)| length.parse().unwrap());
            if body.len() >= length || read == 0 {
                break (head.to_owned(), body.to_owned());
            }
        };
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let (status, json) = self.say(&path, &body);
        let json = json.to_string();
        write!(
            stream,
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n{json}",
            json.len()
        )
    }

    fn say(&self, path: &str, body: &str) -> (&'static str, Value) {
        let mut told = self.told.lock().unwrap();
        told.asked.push(format!("{path} {body}"));
        let url = &self.url;
        match path {
            "/.well-known/openid-configuration" => (
                "200 OK",
                json!({
                    "issuer": told.issuer.as_ref().unwrap_or(url),
                    "token_endpoint": format!("{url}/token"),
                    "authorization_endpoint": format!("{url}/authorize?tenant=x"),
                    "device_authorization_endpoint": format!("{url}/device"),
                    "revocation_endpoint": format!("{url}/revoke"),
                    "jwks_uri": format!("{url}/keys"),
                }),
            ),
            "/keys" => ("200 OK", json!({"keys": [self.signer.jwk(Some("k1"))]})),
            "/device" => (
                "200 OK",
                json!({
                    "device_code": "dev-1", "user_code": "WDJB\u{1b}[31m-MJHT",
                    "verification_uri": format!("{url}/activate"), "expires_in": 60, "interval": 1,
                }),
            ),
            "/token" => self.tokens(&mut told, body),
            "/revoke" => ("200 OK", json!({})),
            _ => ("404 Not Found", json!({})),
        }
    }

    fn tokens(&self, told: &mut Told, body: &str) -> (&'static str, Value) {
        let no = |error: &str| ("400 Bad Request", json!({"error": error}));
        if body.contains("device_code=dev-1") && body.contains("client_id=cofferdam-cli") {
            if told.says_no {
                return no("access_denied");
            }
            if told.pending > 0 {
                told.pending -= 1;
                return no("authorization_pending");
            }
        } else if body.contains("grant_type=authorization_code&code=c1&") {
            let verifier = body.split("code_verifier=").nth(1).unwrap();
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes());
            if told.challenge != base64(digest.as_ref()) {
                return no("invalid_grant");
            }
        } else if !body.contains(&format!("refresh_token=r{}&", told.refresh)) {
            return no("invalid_grant");
        }
        told.refresh += 1;
        let token = self.token(&told.sub, told.life_s);
        let answer = json!({
            "access_token": "opaque", "id_token": token, "token_type": "Bearer",
            "expires_in": told.access_life_s.unwrap_or(told.life_s), "refresh_token": format!("r{}", told.refresh),
        });
        ("200 OK", answer)
    }
}
