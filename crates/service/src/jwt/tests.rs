//! What is read of a token, and decided on its claims, whatever it is. Attacks on the whole are in `tests/service/jwt.rs`.

#[path = "../../../../fuzz/engine.rs"]
mod engine;

use super::Held;
use super::keys::JwtKeys;
use super::rules::{Issuer, RoleFrom, TenantFrom, Wrong, decide};
use super::text::{Algorithm, parse};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::access::{Action, Scopes};
use model::principal::{PrincipalKind, Role};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const NOW_S: u64 = 1_800_000_000;

fn issuer() -> Issuer {
    let roles = [("ops", Role::Operator), ("root", Role::Admin)];
    Issuer {
        name: "corp".to_owned(),
        issuer: "https://id.example".to_owned(),
        audience: "cofferdam".to_owned(),
        algorithms: vec![Algorithm::Hs256],
        tenant: TenantFrom::Claim("org".to_owned(), vec!["acme".to_owned()]),
        principal_claim: "sub".to_owned(),
        kind: PrincipalKind::User,
        role: RoleFrom::Claim(
            "/realm/roles".to_owned(),
            roles.map(|(name, role)| (name.to_owned(), role)).into(),
            Some(Role::Member),
        ),
        role_max: Role::Operator,
        scopes_claim: "scope".to_owned(),
        needs_scope: false,
        leeway_s: 30,
        life_max_s: 3600,
        creates: false,
        login: None,
    }
}

fn claims(change: Value) -> Map<String, Value> {
    let all = json!({
        "aud": "cofferdam", "exp": NOW_S + 60, "iat": NOW_S, "sub": "alice", "org": "acme",
    });
    let (Value::Object(mut all), Value::Object(change)) = (all, change) else {
        return Map::new();
    };
    for (name, value) in change {
        match value.is_null() {
            true => drop(all.remove(&name)),
            false => drop(all.insert(name, value)),
        }
    }
    all
}

fn wrong(change: Value) -> Option<Wrong> {
    decide(&issuer(), &claims(change), NOW_S).err()
}

#[test]
fn a_time_is_a_whole_number_of_seconds_and_a_token_without_an_end_is_none() {
    for exp in [
        json!(null),
        json!(-1),
        json!(1.5),
        json!(1.8e9),
        json!("1900000000"),
        json!(u64::MAX),
        json!(253_402_300_800_u64),
        json!([NOW_S]),
        json!(true),
    ] {
        assert_eq!(wrong(json!({"exp": exp})), Some(Wrong::Times), "{exp}");
    }
    for name in ["nbf", "iat"] {
        assert_eq!(wrong(json!({name: 1.5})), Some(Wrong::Times), "{name}");
    }
}

#[test]
fn a_token_counts_from_its_beginning_to_its_end_give_or_take_the_leeway() {
    for (change, expect) in [
        (json!({"exp": NOW_S - 29, "iat": NOW_S - 90}), None),
        (
            json!({"exp": NOW_S - 30, "iat": NOW_S - 90}),
            Some(Wrong::Expired),
        ),
        (json!({"nbf": NOW_S + 30}), None),
        (json!({"nbf": NOW_S + 31}), Some(Wrong::NotYet)),
        (
            json!({"iat": NOW_S + 31, "exp": NOW_S + 60}),
            Some(Wrong::NotYet),
        ),
        (json!({"exp": NOW_S + 3600}), None),
        (json!({"exp": NOW_S + 3601}), Some(Wrong::Life)),
        (json!({"exp": NOW_S + 3601, "iat": null}), Some(Wrong::Life)),
        (
            json!({"exp": NOW_S + 10, "iat": NOW_S - 3600}),
            Some(Wrong::Life),
        ),
    ] {
        assert_eq!(wrong(change.clone()), expect, "{change}");
    }
}

#[test]
fn an_audience_a_name_and_a_tenant_are_what_they_must_be_and_nothing_like_it() {
    for aud in [
        json!(null),
        json!("Cofferdam"),
        json!("cofferdam "),
        json!(["other"]),
        json!(["cofferdam", 1]),
        json!({"cofferdam": 1}),
        json!(vec!["cofferdam"; 65]),
    ] {
        assert_eq!(wrong(json!({"aud": aud})), Some(Wrong::Audience), "{aud}");
    }
    assert_eq!(wrong(json!({"aud": ["x", "cofferdam"]})), None);
    for sub in [
        json!(null),
        json!(""),
        json!("a b"),
        json!("uid:0"),
        json!("a\u{0}"),
        json!(7),
    ] {
        assert_eq!(wrong(json!({"sub": sub})), Some(Wrong::Principal), "{sub}");
    }
    for org in [json!(null), json!("local"), json!("ACME"), json!(["acme"])] {
        assert_eq!(wrong(json!({"org": org})), Some(Wrong::Tenant), "{org}");
    }
}

#[test]
fn a_role_is_the_largest_that_is_known_and_never_more_than_the_issuers() {
    let role = |roles: Value| {
        let change = json!({"realm": {"roles": roles}});
        decide(&issuer(), &claims(change), NOW_S).map(|stands| stands.role)
    };
    assert_eq!(role(json!(["other"])), Ok(Role::Member));
    assert_eq!(role(json!("ops")), Ok(Role::Operator));
    assert_eq!(role(json!(["ops", "root", "admin"])), Ok(Role::Operator));
    // A claim whose name has a slash in it is not one at a place.
    let change = json!({"/realm/roles": ["ops"]});
    let stands = decide(&issuer(), &claims(change), NOW_S).unwrap();
    assert_eq!(stands.role, Role::Member);
    let strict = Issuer {
        role: RoleFrom::Claim(
            "groups".to_owned(),
            [("a".to_owned(), Role::Member)].into(),
            None,
        ),
        ..issuer()
    };
    let found = decide(&strict, &claims(json!({"groups": ["b"]})), NOW_S);
    assert_eq!(found, Err(Wrong::Role));
}

#[test]
fn scopes_narrow_and_those_that_are_misspelt_do_not_widen() {
    let scopes = |scope: Value| {
        let found = decide(&issuer(), &claims(json!({"scope": scope})), NOW_S);
        found.map(|stands| stands.scopes)
    };
    assert_eq!(scopes(json!("openid email")), Ok(Scopes::default()));
    let narrow = Ok(Scopes::of([Action::JobRead]));
    assert_eq!(scopes(json!("openid job:read")), narrow);
    assert_eq!(scopes(json!(["job:read", "jobs:write"])), narrow);
    assert_eq!(scopes(json!("job:reed x:write")), Err(Wrong::Scope));
    let strict = Issuer {
        needs_scope: true,
        ..issuer()
    };
    let found = decide(&strict, &claims(json!({"scope": "openid"})), NOW_S);
    assert_eq!(found, Err(Wrong::Scope));
}

const SECRET: &[u8] = b"a secret of thirty-two bytes and more";

fn signed(header: &Value, claims: &Map<String, Value>) -> String {
    let part = |value: &[u8]| URL_SAFE_NO_PAD.encode(value);
    let claims = Value::Object(claims.clone()).to_string();
    let text = format!(
        "{}.{}",
        part(header.to_string().as_bytes()),
        part(claims.as_bytes())
    );
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET);
    let signature = aws_lc_rs::hmac::sign(&key, text.as_bytes());
    format!("{text}.{}", part(signature.as_ref()))
}

fn seeds() -> Vec<Vec<u8>> {
    let all = claims(json!({"iss": "https://id.example"}));
    let texts = [
        signed(&json!({"alg": "HS256"}), &all),
        signed(&json!({"alg": "HS256", "typ": "at+jwt", "kid": "a"}), &all),
        signed(&json!({"alg": "none"}), &all),
        signed(
            &json!({"alg": "RS256", "kid": "../../etc/passwd", "jku": "http://x"}),
            &all,
        ),
    ];
    texts.map(String::into_bytes).into()
}

/// The loop alone, on a clock that goes on by itself when nothing else does.
#[tokio::test(start_paused = true)]
async fn keys_are_had_each_ten_minutes_and_sooner_upon_a_wish_but_never_twice_in_a_minute() {
    let held = Held::new(issuer(), None);
    let clock = crate::Clock::fake(NOW_S * 1000);
    let begun = tokio::time::Instant::now();
    let at = || begun.elapsed().as_secs();
    let answer = json!({"keys": []}).to_string().into_bytes();
    assert!(
        !held.once(&clock, async { Ok(answer) }).await,
        "no key, no set"
    );
    held.pause(false).await;
    assert_eq!(at(), 60, "one that failed is tried again");
    held.pause(true).await;
    assert_eq!(at(), 660);
    held.wanted.notify_one();
    held.wanted.notify_one();
    held.pause(true).await;
    assert_eq!(at(), 720);
    let hangs = std::future::pending();
    assert!(!held.once(&clock, hangs).await);
    assert_eq!(at(), 730, "one that hangs is given up");
}

/// Targets: `cargo xtask fuzz` finds them by the name of the module.
mod fuzz {
    use super::*;

    const WORDS: &[&[u8]] = &[
        b".",
        b"..",
        b"=",
        b"eyJhbGciOiJub25lIn0",
        b"eyJhbGciOiJIUzI1NiJ9",
        b"AA",
        b"-_",
        b"\0",
        b"\n",
    ];

    /// A text that is read has no other that means the same, and only what was signed has a signature that is right.
    fn text(input: &[u8], own: &[Vec<u8>], keys: &JwtKeys) {
        let Ok(text) = std::str::from_utf8(input) else {
            return;
        };
        let Some(token) = parse(text) else { return };
        let signature = URL_SAFE_NO_PAD.encode(&token.signature);
        let signed = std::str::from_utf8(token.signed).unwrap();
        assert_eq!(format!("{signed}.{signature}"), text);
        assert!(!keys.signed(&token) || own.iter().any(|seed| seed == input));
    }

    #[test]
    fn a_changed_token_is_never_signed_and_never_has_two_texts() {
        let (seeds, keys) = (seeds(), JwtKeys::secret(SECRET).unwrap());
        let own = seeds.clone();
        let ours = |text: &[u8]| keys.signed(&parse(std::str::from_utf8(text).unwrap()).unwrap());
        assert!(ours(&own[0]) && ours(&own[1]), "the target can say yes");
        engine::run("jwt text", &seeds, WORDS, |input| text(input, &own, &keys));
    }

    /// Whatever the claims are, who is let in has the tenant, the role and the time that the issuer may give.
    fn decided(input: &[u8]) {
        let Some(claims) = super::super::json::object(input) else {
            return;
        };
        let issuer = issuer();
        if let Ok(stands) = decide(&issuer, &claims, NOW_S) {
            assert_eq!(stands.tenant, "acme");
            assert!(stands.role <= issuer.role_max);
            assert!((stands.from_s..stands.until_s).contains(&NOW_S));
            assert!(stands.until_s <= NOW_S + issuer.life_max_s + 2 * issuer.leeway_s);
            assert!(stands.principal.as_str().starts_with("user:"));
        }
    }

    #[test]
    fn whatever_claims_are_nobody_gets_more_than_the_issuer_may_give() {
        let seeds: Vec<Vec<u8>> = [
            json!({}),
            json!({"nbf": NOW_S, "scope": "job:read", "realm": {"roles": ["ops", "root"]}}),
            json!({"aud": ["x", "cofferdam"]}),
        ]
        .into_iter()
        .map(|change| Value::Object(claims(change)).to_string().into_bytes())
        .collect();
        let words: &[&[u8]] = &[
            b"\"exp\":",
            b"1e9",
            b"-",
            b"18446744073709551616",
            b"[",
            b"]",
            b"{",
            b"}",
            b"null",
            b"\"local\"",
            b"\"root\"",
            b",\"org\":\"other\"",
            b"\\u0061",
        ];
        engine::run("jwt claims", &seeds, words, decided);
    }

    #[test]
    fn whatever_a_set_of_keys_is_it_is_read_or_refused() {
        let x = URL_SAFE_NO_PAD.encode([9; 32]);
        let seeds: Vec<Vec<u8>> = [
            json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "a", "use": "sig"}]}),
            json!({"keys": [{"kty": "EC", "crv": "P-256", "x": x, "y": x}]}),
            json!({"keys": [{"kty": "RSA", "n": x, "e": "AQAB", "alg": "RS256"}]}),
            json!({"keys": [{"kty": "oct", "k": x}]}),
        ]
        .into_iter()
        .map(|set| set.to_string().into_bytes())
        .collect();
        let words: &[&[u8]] = &[
            b"\"kty\":\"RSA\"",
            b"AQAB",
            b"AA",
            b"\"",
            b"{",
            b"}",
            b"[",
            b"]",
        ];
        let target = |input: &[u8]| drop(JwtKeys::parse(input, &Algorithm::ALL));
        engine::run("jwt keys", &seeds, words, target);
    }
}

proptest! {
    #[test]
    fn no_life_is_longer_than_the_issuer_may_give(
        exp in 0_u64..=253_402_300_799,
        iat in proptest::option::of(0_u64..=253_402_300_799),
        nbf in proptest::option::of(0_u64..=253_402_300_799),
        near in any::<bool>(),
    ) {
        let near = |time: u64| if near { NOW_S - 5000 + time % 10_000 } else { time };
        let change = json!({
            "exp": near(exp), "iat": iat.map(near), "nbf": nbf.map(near),
        });
        if let Ok(stands) = decide(&issuer(), &claims(change), NOW_S) {
            prop_assert!(stands.until_s <= NOW_S + 3600 + 60);
            prop_assert!(stands.until_s > NOW_S && stands.from_s <= NOW_S);
        }
    }

    #[test]
    fn one_changed_byte_of_a_token_is_never_signed(at in 0_usize..200, with in any::<u8>()) {
        let keys = JwtKeys::secret(SECRET).unwrap();
        let whole = seeds().remove(0);
        let at = at % whole.len();
        prop_assume!(whole[at] != with);
        let mut changed = whole;
        changed[at] = with;
        let text = String::from_utf8_lossy(&changed);
        prop_assert!(!parse(&text).is_some_and(|token| keys.signed(&token)));
    }
}
