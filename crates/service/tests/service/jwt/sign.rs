//! An issuer of tokens: keys, and whatever is signed with them.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RsaKeyPair,
};
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Base64 as tokens have it.
pub(crate) fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let padded = [three, &[0, 0]].concat();
        let number = u32::from_be_bytes([0, padded[0], padded[1], padded[2]]);
        for digit in 0..=three.len() {
            let at = number >> (18 - 6 * digit) & 63;
            text.push(char::from(DIGITS[usize::try_from(at).unwrap()]));
        }
    }
    text
}

#[derive(Clone)]
pub(crate) enum Signer {
    Rsa(Arc<RsaKeyPair>),
    Ec(Arc<EcdsaKeyPair>),
    Ed(Arc<Ed25519KeyPair>),
    Secret(Vec<u8>),
}

/// The numbers of an RSA key (RFC 8017, A.1.1), each with its length of one, two or three bytes.
fn rsa_numbers(der: &[u8]) -> (Vec<u8>, Vec<u8>) {
    fn one(at: &mut &[u8]) -> Vec<u8> {
        let (len, skip) = match at[1] {
            0x81 => (usize::from(at[2]), 3),
            0x82 => (usize::from(at[2]) << 8 | usize::from(at[3]), 4),
            len => (usize::from(len), 2),
        };
        let value = at[skip..skip + len].to_vec();
        *at = &at[skip + len..];
        value
    }
    let mut rest = der;
    let inside = one(&mut rest);
    let mut rest = inside.as_slice();
    let trim = |number: Vec<u8>| {
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        number[zeros..].to_vec()
    };
    (trim(one(&mut rest)), trim(one(&mut rest)))
}

impl Signer {
    /// One of two RSA keys: to make one takes long.
    pub(crate) fn rsa(number: usize) -> Signer {
        static KEYS: [OnceLock<Arc<RsaKeyPair>>; 2] = [OnceLock::new(), OnceLock::new()];
        let make = || Arc::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
        Signer::Rsa(KEYS[number].get_or_init(make).clone())
    }

    pub(crate) fn ec() -> Signer {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
        Signer::Ec(Arc::new(key.unwrap()))
    }

    pub(crate) fn ed() -> Signer {
        Signer::Ed(Arc::new(Ed25519KeyPair::generate().unwrap()))
    }

    pub(crate) fn alg(&self) -> &'static str {
        match self {
            Signer::Rsa(_) => "RS256",
            Signer::Ec(_) => "ES256",
            Signer::Ed(_) => "EdDSA",
            Signer::Secret(_) => "HS256",
        }
    }

    pub(crate) fn sign(&self, text: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Signer::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, text, &mut signature)
                    .unwrap();
                signature
            }
            Signer::Ec(key) => key.sign(&random, text).unwrap().as_ref().to_vec(),
            Signer::Ed(key) => key.sign(text).as_ref().to_vec(),
            Signer::Secret(secret) => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
                hmac::sign(&key, text).as_ref().to_vec()
            }
        }
    }

    /// Its public key, as a set has it.
    pub(crate) fn jwk(&self, kid: Option<&str>) -> Value {
        let mut jwk = match self {
            Signer::Rsa(key) => {
                let (n, e) = rsa_numbers(key.public_key().as_ref());
                json!({"kty": "RSA", "n": base64(&n), "e": base64(&e)})
            }
            Signer::Ec(key) => {
                let point = key.public_key().as_ref();
                let (x, y) = point[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "x": base64(x), "y": base64(y)})
            }
            Signer::Ed(key) => {
                let x = base64(key.public_key().as_ref());
                json!({"kty": "OKP", "crv": "Ed25519", "x": x})
            }
            Signer::Secret(secret) => json!({"kty": "oct", "k": base64(secret)}),
        };
        if let Some(kid) = kid {
            jwk["kid"] = kid.into();
        }
        jwk
    }

    /// The forms in which somebody may take a public key for a secret.
    pub(crate) fn public_texts(&self) -> Vec<Vec<u8>> {
        let Signer::Rsa(key) = self else {
            return Vec::new();
        };
        let der = key.public_key().as_der().unwrap().as_ref().to_vec();
        let base: String = {
            // PEM is base64 with the other two digits.
            let text = base64(&der).replace('-', "+").replace('_', "/");
            let padded = text.len().div_ceil(4) * 4;
            let text = format!("{text}{}", "=".repeat(padded - text.len()));
            let lines: Vec<&str> = (0..text.len())
                .step_by(64)
                .map(|at| &text[at..text.len().min(at + 64)])
                .collect();
            lines.join("\n")
        };
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{base}\n-----END PUBLIC KEY-----\n");
        vec![
            der,
            pem.clone().into_bytes(),
            pem.trim().as_bytes().to_vec(),
            key.public_key().as_ref().to_vec(),
            self.jwk(None).to_string().into_bytes(),
        ]
    }

    /// A token with this header and these claims.
    pub(crate) fn token(&self, header: &Value, claims: &str) -> String {
        let header = base64(header.to_string().as_bytes());
        let text = format!("{header}.{}", base64(claims.as_bytes()));
        let signature = self.sign(text.as_bytes());
        format!("{text}.{}", base64(&signature))
    }
}
