//! Tokens that others have signed: who gets in with one, and everything that somebody may try.

mod sign;

use super::*;
use model::access::{Action, Scopes};
use model::principal::{PrincipalKind, Role};
use serde_json::{Value, json};
use service::{Algorithm, Error, Issuer, JwtKeys, NewKey, RoleFrom, ShownBy, TenantFrom, Who};
use sign::{Signer, base64};
use tokio::sync::watch;

const NOW_S: u64 = 1_800_000_000;
const ISS: &str = "https://id.example";
const SECRET: &[u8] = b"a secret of thirty-two bytes and more";

fn rules(name: &str, iss: &str) -> Issuer {
    Issuer {
        name: name.to_owned(),
        issuer: iss.to_owned(),
        audience: "cofferdam".to_owned(),
        algorithms: vec![Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa],
        tenant: TenantFrom::Fixed("local".to_owned()),
        principal_claim: "sub".to_owned(),
        kind: PrincipalKind::User,
        role: RoleFrom::Fixed(Role::Operator),
        role_max: Role::Operator,
        scopes_claim: "scope".to_owned(),
        needs_scope: false,
        leeway_s: 30,
        life_max_s: 3600,
        creates: true,
        login: None,
    }
}

/// A set with the keys of these.
fn set(keys: &[Value]) -> JwtKeys {
    let text = json!({"keys": keys}).to_string();
    JwtKeys::parse(text.as_bytes(), &Algorithm::ALL).unwrap()
}

fn claims(change: Value) -> String {
    let mut all = json!({
        "iss": ISS, "aud": "cofferdam", "sub": "alice", "iat": NOW_S, "exp": NOW_S + 600,
    });
    for (name, value) in change.as_object().unwrap() {
        match value.is_null() {
            true => drop(all.as_object_mut().unwrap().remove(name)),
            false => all[name] = value.clone(),
        }
    }
    all.to_string()
}

fn token(signer: &Signer, change: Value) -> String {
    let header = json!({"alg": signer.alg(), "typ": "JWT", "kid": "a"});
    signer.token(&header, &claims(change))
}

/// A service that believes one issuer, with an RSA key of the name `a`.
fn world() -> (World, Signer) {
    let (world, signer) = (World::new(), Signer::rsa(0));
    let keys = set(&[signer.jwk(Some("a"))]);
    world
        .service
        .issuers_are(vec![(rules("corp", ISS), Some(keys))]);
    (world, signer)
}

async fn who(world: &World, text: &str) -> Result<Who, Error> {
    let who = world.service.shown_who(text).await;
    who.map(|who| who.expect("a token that does not count is an error"))
}

/// That a stranger's text is refused as any other is.
async fn is_refused(world: &World, text: &str, what: &str) {
    let said = match world.service.shown_who(text).await {
        Err(error) => error.to_string(),
        Ok(who) => return assert_eq!(who.map(|who| who.principal), None, "{what}"),
    };
    assert_eq!(
        said, "the token is not one that this server believes",
        "{what}"
    );
}

async fn why(world: &World, text: &str) -> String {
    who(world, text).await.unwrap_err().to_string()
}

#[tokio::test]
async fn a_token_of_each_algorithm_lets_in_its_principal_and_no_other_does() {
    for signer in [Signer::rsa(0), Signer::ec(), Signer::ed()] {
        let world = World::new();
        let keys = set(&[signer.jwk(None)]);
        world
            .service
            .issuers_are(vec![(rules("corp", ISS), Some(keys))]);
        let who = who(&world, &token(&signer, json!({"scope": "openid job:read"})))
            .await
            .unwrap();
        assert_eq!(who.principal.as_str(), "user:alice");
        assert_eq!(who.grant.scopes, Scopes::of([Action::JobRead]));
        let shown = who.shown.unwrap();
        assert_eq!(shown.by, ShownBy::Token("corp".to_owned()));
        assert_eq!(shown.expires_at_ms, Some((NOW_S + 630) * 1000));
    }
    let world = World::new();
    let signer = Signer::Secret(SECRET.to_vec());
    let keys = JwtKeys::secret(SECRET).unwrap();
    world
        .service
        .issuers_are(vec![(rules("ci", ISS), Some(keys))]);
    assert!(who(&world, &token(&signer, json!({}))).await.is_ok());
    let other = Signer::Secret(b"another secret of thirty-two bytes and more".to_vec());
    is_refused(&world, &token(&other, json!({})), "another secret").await;
}

/// Attack: A token that nobody has signed: `alg` is `none` in any spelling, another one, or no text at all.
#[tokio::test]
async fn alg_none_is_refused_however_it_is_written() {
    let (world, signer) = world();
    for alg in [
        "none", "None", "NONE", "nOnE", "", "HS384", "PS256", "RS512",
    ] {
        let header = json!({"alg": alg, "kid": "a"});
        let whole = signer.token(&header, &claims(json!({})));
        is_refused(&world, &whole, alg).await;
        let (text, _) = whole.rsplit_once('.').unwrap();
        is_refused(&world, &format!("{text}."), "an empty signature").await;
    }
    for header in [json!({}), json!({"alg": null}), json!({"alg": ["RS256"]})] {
        let text = signer.token(&header, &claims(json!({})));
        is_refused(&world, &text, &header.to_string()).await;
    }
}

/// Attack: Key confusion: a token is signed by HMAC with the issuer's public key, in every form that somebody may
/// keep it in.
#[tokio::test]
async fn a_public_key_is_never_taken_for_a_secret() {
    let (world, signer) = world();
    for secret in signer.public_texts() {
        let forger = Signer::Secret(secret);
        is_refused(
            &world,
            &token(&forger, json!({})),
            "HS256 with the public key",
        )
        .await;
        // Also where the header has the right algorithm.
        let header = json!({"alg": "RS256", "kid": "a"});
        let text = forger.token(&header, &claims(json!({})));
        is_refused(&world, &text, "an HMAC as RS256").await;
    }
    // A set that has a secret in it: whoever reads the set could sign.
    let mut keys = vec![Signer::Secret(SECRET.to_vec()).jwk(Some("s"))];
    let text = json!({"keys": keys}).to_string();
    assert!(JwtKeys::parse(text.as_bytes(), &Algorithm::ALL).is_err());
    keys.push(signer.jwk(None));
    assert!(format!("{:?}", set(&keys)).contains("Rs256"));
    assert!(!format!("{:?}", set(&keys)).contains("Hs256"));
}

/// Attack: A set of keys has one for another algorithm or use, more than a hundred, or one that is too short.
#[tokio::test]
async fn a_key_of_another_algorithm_than_the_issuer_may_use_is_left_out() {
    let ed = Signer::ed();
    let text = json!({"keys": [ed.jwk(Some("a"))]}).to_string();
    assert!(JwtKeys::parse(text.as_bytes(), &[Algorithm::Rs256]).is_err());
    for (name, value) in [
        ("use", json!("enc")),
        ("key_ops", json!(["sign"])),
        ("alg", json!("RS256")),
    ] {
        let mut jwk = ed.jwk(None);
        jwk[name] = value;
        let text = json!({"keys": [jwk]}).to_string();
        assert!(
            JwtKeys::parse(text.as_bytes(), &Algorithm::ALL).is_err(),
            "{name}"
        );
    }
    let many = vec![ed.jwk(None); 101];
    let text = json!({"keys": many}).to_string();
    assert!(JwtKeys::parse(text.as_bytes(), &Algorithm::ALL).is_err());
    // RSA below 2048 bits.
    let short = json!({"keys": [{"kty": "RSA", "n": base64(&[0xc1; 128]), "e": "AQAB"}]});
    let keys = JwtKeys::parse(short.to_string().as_bytes(), &Algorithm::ALL);
    if let Ok(keys) = keys {
        let world = World::new();
        world
            .service
            .issuers_are(vec![(rules("corp", ISS), Some(keys))]);
        is_refused(&world, &token(&Signer::rsa(0), json!({})), "a short key").await;
    }
}

/// Attack: `kid` is a path, a piece of SQL, a URL.
#[tokio::test]
async fn a_kid_chooses_among_the_keys_of_its_issuer_and_nothing_else() {
    let (world, signer) = world();
    for kid in [
        "../../../dev/null",
        "a' OR '1'='1",
        "b",
        "A",
        "",
        "a\u{0}",
        "http://x/k",
    ] {
        let header = json!({"alg": "RS256", "kid": kid});
        let text = signer.token(&header, &claims(json!({})));
        is_refused(&world, &text, kid).await;
    }
    for kid in [json!(1), json!(null), json!(["a"]), json!("a".repeat(257))] {
        let header = json!({"alg": "RS256", "kid": kid});
        let text = signer.token(&header, &claims(json!({})));
        is_refused(&world, &text, &kid.to_string()).await;
    }
}

/// Attack: A token brings its own key, or says where to have it: `jwk`, `jku`, `x5u`, `x5c`.
#[tokio::test]
async fn a_key_that_a_token_brings_along_is_not_looked_at() {
    let (world, _) = world();
    let other = Signer::rsa(1);
    for (name, value) in [
        ("jwk", other.jwk(Some("a"))),
        ("jku", json!("https://evil.example/keys")),
        ("x5u", json!("https://evil.example/cert")),
        ("x5c", json!(["MIIB"])),
    ] {
        let mut header = json!({"alg": "RS256", "kid": "a"});
        header[name] = value;
        let text = other.token(&header, &claims(json!({})));
        is_refused(&world, &text, name).await;
    }
}

/// Attack: A header says that something else was signed: `crit`, `b64`, `zip`, `enc`, another `typ`.
#[tokio::test]
async fn a_header_that_changes_what_is_signed_is_refused() {
    let (world, signer) = world();
    for (name, value) in [
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("b64", json!(false)),
        ("b64", json!(true)),
        ("cty", json!("JWT")),
        ("zip", json!("DEF")),
        ("enc", json!("A256GCM")),
        ("typ", json!("JWE")),
        ("typ", json!("secevent+jwt")),
        ("typ", json!(1)),
    ] {
        let mut header = json!({"alg": "RS256", "kid": "a"});
        header[name] = value;
        let text = signer.token(&header, &claims(json!({})));
        is_refused(&world, &text, &header.to_string()).await;
    }
    for typ in ["JWT", "jwt", "at+jwt", "application/at+jwt"] {
        let header = json!({"alg": "RS256", "kid": "a", "typ": typ});
        let text = signer.token(&header, &claims(json!({})));
        assert!(who(&world, &text).await.is_ok(), "{typ}");
    }
}

/// Attack: The signature of another token or key, one that is truncated, one of zeros.
#[tokio::test]
async fn a_signature_of_another_key_or_of_other_bytes_is_refused() {
    let (world, signer) = world();
    is_refused(&world, &token(&Signer::rsa(1), json!({})), "another key").await;
    let (one, two) = (
        token(&signer, json!({})),
        token(&signer, json!({"sub": "bob"})),
    );
    let parts = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<String>>();
    let (one, two) = (parts(&one), parts(&two));
    let swapped = format!("{}.{}.{}", one[0], two[1], one[2]);
    is_refused(&world, &swapped, "the claims of another token").await;
    for cut in [1, 10, one[2].len() - 1] {
        let short = &one[2][..one[2].len() - cut];
        let text = format!("{}.{}.{short}", one[0], one[1]);
        is_refused(&world, &text, "a signature that is cut").await;
    }
    let zeros = base64(&[0; 256]);
    is_refused(&world, &format!("{}.{}.{zeros}", one[0], one[1]), "zeros").await;
}

/// Attack: A token is truncated, padded, or written in another way that decodes to the same bytes.
#[tokio::test]
async fn a_token_has_one_text() {
    let (world, signer) = world();
    let whole = token(&signer, json!({}));
    assert!(who(&world, &whole).await.is_ok());
    let parts: Vec<&str> = whole.split('.').collect();
    // The last digit of 256 bytes has four bits that say nothing.
    let last = parts[2].chars().last().unwrap();
    let digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let at = digits.find(last).unwrap();
    let next = digits.chars().nth(at ^ 1).unwrap();
    let other_bits = format!("{}{next}", &whole[..whole.len() - 1]);
    for (text, what) in [
        (other_bits.as_str(), "bits behind the end"),
        (&format!("{whole}="), "padding"),
        (&format!("{whole}=="), "padding"),
        (&whole.replace('-', "+").replace('_', "/"), "other digits"),
        (&format!(" {whole}"), "white space"),
        (&format!("{whole}\n"), "white space"),
        (&format!("{whole}."), "another part"),
        (&format!("{}.{}", parts[0], parts[1]), "a part less"),
        (&format!("{}..{}", parts[0], parts[2]), "an empty part"),
        (&whole[..whole.len() / 2], "half of it"),
        ("ey..", "nothing"),
        ("", "nothing"),
    ] {
        if text != whole {
            is_refused(&world, text, what).await;
        }
    }
}

/// Attack: A claim stands twice, for two readers that each take another.
#[tokio::test]
async fn a_claim_that_stands_twice_is_refused() {
    let (world, signer) = world();
    let header = json!({"alg": "RS256", "kid": "a"});
    let all = claims(json!({}));
    for more in [
        r#","sub":"root"}"#,
        r#","s\u0075b":"root"}"#,
        r#","iss":"https://id.example"}"#,
        r#","x":{"a":1,"a":2}}"#,
    ] {
        let twice = format!("{}{more}", all.strip_suffix('}').unwrap());
        is_refused(&world, &signer.token(&header, &twice), more).await;
    }
    let text = format!(
        "{}.{}",
        base64(br#"{"alg":"none","alg":"RS256","kid":"a"}"#),
        base64(all.as_bytes())
    );
    let signature = base64(&signer.sign(text.as_bytes()));
    is_refused(&world, &format!("{text}.{signature}"), "alg twice").await;
}

/// Attack: A token in a token, an encrypted one, one that is too long, claims that are no object.
#[tokio::test]
async fn a_token_in_a_token_an_encrypted_one_and_one_that_is_too_long_are_refused() {
    let (world, signer) = world();
    let inner = token(&signer, json!({}));
    let header = json!({"alg": "RS256", "kid": "a", "cty": "JWT"});
    is_refused(&world, &signer.token(&header, &inner), "nested").await;
    let header = json!({"alg": "RS256", "kid": "a"});
    is_refused(&world, &signer.token(&header, &inner), "nested").await;
    let sealed = base64(br#"{"alg":"RSA-OAEP","enc":"A256GCM"}"#);
    is_refused(&world, &format!("{sealed}.AA.AA.AA.AA"), "JWE").await;
    let long = token(&signer, json!({"x": "a".repeat(8192)}));
    is_refused(&world, &long, "too long").await;
    for claims in ["[]", "1", "null", "", "{", "\u{feff}{}"] {
        is_refused(&world, &signer.token(&header, claims), claims).await;
    }
}

/// Attack: A token for another service is shown here, or one that names an issuer almost like ours.
#[tokio::test]
async fn a_token_of_another_issuer_is_refused_as_any_text_is_and_one_for_another_audience_is_told_so()
 {
    let (world, signer) = world();
    for iss in [
        json!(null),
        json!("https://id.example/"),
        json!("HTTPS://id.example"),
        json!(["x"]),
    ] {
        is_refused(
            &world,
            &token(&signer, json!({"iss": iss})),
            "another issuer",
        )
        .await;
    }
    let aud = why(&world, &token(&signer, json!({"aud": "other"}))).await;
    assert!(aud.contains("`aud`"), "{aud}");
    // Without a right signature nobody is told anything.
    let forged = token(&Signer::rsa(1), json!({"aud": "other"}));
    is_refused(&world, &forged, "another audience, forged").await;
}

/// Attack: A token is replayed after its time, while the server still remembers it.
#[tokio::test]
async fn a_token_counts_in_its_time_and_no_second_longer_also_from_memory() {
    let (world, signer) = world();
    let expired = token(&signer, json!({"iat": NOW_S - 100, "exp": NOW_S - 30}));
    assert!(why(&world, &expired).await.contains("expired"));
    let early = token(&signer, json!({"nbf": NOW_S + 60}));
    assert!(why(&world, &early).await.contains("not come"));
    let endless = token(&signer, json!({"exp": null}));
    assert!(why(&world, &endless).await.contains("no `exp`"));
    let short = token(&signer, json!({"exp": NOW_S + 10}));
    assert!(who(&world, &short).await.is_ok());
    world.clock.advance(39_999);
    assert!(
        who(&world, &short).await.is_ok(),
        "the leeway is thirty seconds"
    );
    world.clock.advance(1);
    assert!(why(&world, &short).await.contains("expired"));
}

/// Attack: Key confusion: one issuer signs as another, or names somebody whom the other one has let in.
#[tokio::test]
async fn keys_of_two_issuers_that_have_one_name_are_not_mistaken_for_each_other() {
    let world = World::new();
    let (one, two) = (Signer::rsa(0), Signer::rsa(1));
    let other = "https://other.example";
    world.service.issuers_are(vec![
        (rules("corp", ISS), Some(set(&[one.jwk(Some("a"))]))),
        (rules("other", other), Some(set(&[two.jwk(Some("a"))]))),
    ]);
    assert!(who(&world, &token(&one, json!({}))).await.is_ok());
    is_refused(&world, &token(&two, json!({})), "the other's key").await;
    is_refused(
        &world,
        &token(&one, json!({"iss": other})),
        "the other's name",
    )
    .await;
    // Whom one has named first, the other does not speak for.
    let stolen = why(&world, &token(&two, json!({"iss": other}))).await;
    assert!(stolen.contains("another issuer"), "{stolen}");
    let own = token(&two, json!({"iss": other, "sub": "bob"}));
    assert_eq!(
        who(&world, &own).await.unwrap().principal.as_str(),
        "user:bob"
    );
}

/// Attack: An issuer names a tenant that is not its own.
#[tokio::test]
async fn an_issuer_speaks_for_its_tenants_alone() {
    let (world, signer) = (World::new(), Signer::rsa(0));
    let acme = world.service.tenant_create(&user(), "acme", "root").await;
    world
        .service
        .tenant_create(&user(), "beta", "root")
        .await
        .unwrap();
    let rules = Issuer {
        tenant: TenantFrom::Claim("org".to_owned(), vec!["acme".to_owned(), "gone".to_owned()]),
        ..rules("corp", ISS)
    };
    let keys = set(&[signer.jwk(Some("a"))]);
    world.service.issuers_are(vec![(rules, Some(keys))]);
    let found = who(&world, &token(&signer, json!({"org": "acme"}))).await;
    assert_eq!(found.unwrap().tenant, acme.unwrap().tenant.id);
    for org in ["beta", "local", "ten_local", "ACME", "", "gone"] {
        let refused = why(&world, &token(&signer, json!({"org": org}))).await;
        assert!(refused.contains("tenant"), "{org}: {refused}");
    }
}

/// Attack: A token claims a larger role than its issuer may give, or than an admin gave.
#[tokio::test]
async fn nobody_gets_a_larger_role_than_the_issuer_may_give_or_than_an_admin_gave() {
    let (world, signer) = (World::new(), Signer::rsa(0));
    let map = [("root", Role::Admin), ("ops", Role::Operator)];
    let map = map.map(|(name, role)| (name.to_owned(), role)).into();
    let rules = Issuer {
        role: RoleFrom::Claim("groups".to_owned(), map, Some(Role::Member)),
        ..rules("corp", ISS)
    };
    let keys = set(&[signer.jwk(Some("a"))]);
    world.service.issuers_are(vec![(rules, Some(keys))]);
    let role = async |sub: &str, groups: Value| {
        let text = token(&signer, json!({"sub": sub, "groups": groups}));
        who(&world, &text).await.unwrap().grant.role
    };
    assert_eq!(role("alice", json!(["root", "x"])).await, Role::Operator);
    // Less in a later token is less.
    assert_eq!(role("alice", json!([])).await, Role::Member);
    assert_eq!(role("bob", json!("x")).await, Role::Member);
    // More is not: who was let in as a member is one, until an admin says otherwise.
    assert_eq!(role("bob", json!("ops")).await, Role::Member);
    world
        .service
        .principal_create(&user(), PrincipalKind::User, "carol", Role::Admin)
        .await
        .unwrap();
    assert_eq!(role("carol", json!(["root"])).await, Role::Operator);
}

#[tokio::test]
async fn a_role_that_an_admin_gives_bounds_tokens_and_does_not_widen_them() {
    let (world, signer) = (World::new(), Signer::rsa(0));
    let map = [("ops".to_owned(), Role::Operator)].into();
    let rules = Issuer {
        role: RoleFrom::Claim("groups".to_owned(), map, Some(Role::Member)),
        ..rules("corp", ISS)
    };
    let keys = set(&[signer.jwk(Some("a"))]);
    world.service.issuers_are(vec![(rules, Some(keys))]);
    let role = async |groups: Value| {
        let text = token(&signer, json!({"groups": groups}));
        who(&world, &text).await.unwrap().grant.role
    };
    let set = async |role| {
        let row = world
            .service
            .principal_set(&user(), "user:alice", role)
            .await;
        assert_eq!(row.unwrap().issuer.as_deref(), Some("corp"));
    };
    assert_eq!(role(json!("x")).await, Role::Member);
    assert_eq!(role(json!("ops")).await, Role::Member);
    // At once, by the same text, though the clock stands; and no more than the token says.
    set(Role::Admin).await;
    assert_eq!(role(json!("ops")).await, Role::Operator);
    assert_eq!(role(json!("x")).await, Role::Member);
    set(Role::Member).await;
    assert_eq!(role(json!("ops")).await, Role::Member);
}

/// Attack: A token that ends in minutes makes a key that does not.
#[tokio::test]
async fn a_token_makes_no_key_that_outlives_it() {
    let (world, signer) = (World::new(), Signer::rsa(0));
    let rules = Issuer {
        role: RoleFrom::Fixed(Role::Admin),
        role_max: Role::Admin,
        ..rules("corp", ISS)
    };
    let keys = set(&[signer.jwk(Some("a"))]);
    world.service.issuers_are(vec![(rules, Some(keys))]);
    let who = who(&world, &token(&signer, json!({}))).await.unwrap();
    let ctx = Ctx::of(who, "r");
    let ask = |life_ms| NewKey {
        owner: "user:alice".to_owned(),
        life_ms,
        ..NewKey::default()
    };
    let (made, _) = world.service.key_create(&ctx, ask(None)).await.unwrap();
    assert_eq!(made.expires_at_ms, Some((NOW_S + 630) * 1000));
    let longer = world.service.key_create(&ctx, ask(Some(3_600_000))).await;
    assert!(matches!(longer, Err(Error::Forbidden(_))), "{longer:?}");
}

/// Attack: Somebody who was sent away comes back with a token that still counts.
#[tokio::test]
async fn a_principal_that_was_sent_away_does_not_come_back_by_its_token() {
    let (world, signer) = world();
    let text = token(&signer, json!({}));
    assert!(who(&world, &text).await.is_ok());
    let removed = world.service.principal_remove(&user(), "user:alice").await;
    assert_eq!(removed.unwrap().issuer.as_deref(), Some("corp"));
    // At once, though the clock stands; and by a token of a second later too.
    for text in [&text, &token(&signer, json!({"iat": NOW_S + 1}))] {
        let refused = why(&world, text).await;
        assert!(refused.contains("no `user:alice`"), "{refused}");
    }
    world
        .service
        .principal_create(&user(), PrincipalKind::User, "alice", Role::Member)
        .await
        .unwrap();
    let who = who(&world, &text).await.unwrap();
    assert_eq!(who.grant.role, Role::Member);
}

#[tokio::test]
async fn another_server_sends_somebody_away_and_it_is_known_here_within_a_second() {
    let (world, signer) = world();
    let text = token(&signer, json!({}));
    assert!(who(&world, &text).await.is_ok());
    let other = world.again();
    other.principal_remove(&user(), "user:alice").await.unwrap();
    assert!(who(&world, &text).await.is_ok(), "the clock stands");
    world.clock.advance(1000);
    assert!(who(&world, &text).await.is_err());
}

#[tokio::test]
async fn whoever_is_let_in_on_first_sight_is_in_the_record_once_and_only_where_that_is_wanted() {
    let (world, signer) = world();
    let texts: Vec<String> = (0..8)
        .map(|number| token(&signer, json!({"jti": number})))
        .collect();
    let all = texts.iter().map(|text| world.service.shown_who(text));
    let (a, b, c, d) = {
        let mut all = all;
        let mut next = || all.next().unwrap();
        tokio::join!(next(), next(), next(), next())
    };
    for one in [a, b, c, d] {
        assert!(one.unwrap().is_some());
    }
    let query = service::AuditQuery::default();
    let page = world.service.audit_list(&user(), query, 100).await.unwrap();
    let made: Vec<_> = page
        .events
        .iter()
        .filter(|one| one.event.kind == "principal.created")
        .collect();
    assert_eq!(made.len(), 1);
    assert!(made[0].event.data.contains("corp"), "{:?}", made[0].event);
    assert_eq!(made[0].event.principal.as_str(), "service:issuer");
    let closed = World::new();
    let rules = Issuer {
        creates: false,
        ..rules("corp", ISS)
    };
    let keys = set(&[signer.jwk(Some("a"))]);
    closed.service.issuers_are(vec![(rules, Some(keys))]);
    let refused = why(&closed, &texts[0]).await;
    assert!(refused.contains("no `user:alice`"), "{refused}");
}

#[tokio::test]
async fn without_issuers_no_token_counts_and_keys_go_on_to() {
    let (world, signer) = (World::new(), Signer::rsa(0));
    is_refused(&world, &token(&signer, json!({})), "nobody's token").await;
    assert!(world.service.shown_who("cfd_x").await.unwrap().is_none());
}

/// One try to have the keys of the issuer, which brings this.
async fn had(world: &World, answer: Result<Vec<u8>, String>) {
    // Stopped before it begins: it ends after the first try.
    let (_running, stopped) = watch::channel(true);
    let fetch = || async { answer.clone() };
    let keeping = world.service.issuer_keys_keep("corp", fetch, stopped);
    keeping.await;
}

/// A service that has the keys of its issuer from somewhere.
async fn having(keys: &[Value]) -> World {
    let world = World::new();
    world.service.issuers_are(vec![(rules("corp", ISS), None)]);
    had(&world, set_text(keys)).await;
    world
}

fn set_text(keys: &[Value]) -> Result<Vec<u8>, String> {
    Ok(json!({"keys": keys}).to_string().into_bytes())
}

/// Attack: Tokens name keys that nobody has, so that the server asks their issuer without end.
#[tokio::test]
async fn a_key_that_is_not_known_is_asked_for_once_a_minute_whoever_names_it() {
    let (one, two) = (Signer::rsa(0), Signer::ed());
    let world = having(&[one.jwk(Some("a"))]).await;
    assert!(who(&world, &token(&one, json!({}))).await.is_ok());
    let new = two.token(&json!({"alg": "EdDSA", "kid": "b"}), &claims(json!({})));
    let begun = std::time::Instant::now();
    for number in 0..50 {
        let header = json!({"alg": "RS256", "kid": format!("{number}")});
        let text = Signer::rsa(1).token(&header, &claims(json!({})));
        is_refused(&world, &text, "a key that nobody has").await;
    }
    is_refused(&world, &new, "within the minute").await;
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "nobody waits for keys"
    );
    world.clock.advance(60_000);
    let both = set_text(&[one.jwk(Some("a")), two.jwk(Some("b"))]);
    // Whoever asks now waits for the try that it has caused.
    let (found, ()) = tokio::join!(who(&world, &new), had(&world, both));
    assert_eq!(found.unwrap().principal.as_str(), "user:alice");
}

/// Attack: A token is replayed that was signed by a key that the issuer has taken back.
#[tokio::test]
async fn a_key_that_the_issuer_has_taken_out_does_not_count_any_more() {
    let one = Signer::rsa(0);
    let world = having(&[one.jwk(Some("a"))]).await;
    let text = token(&one, json!({}));
    assert!(who(&world, &text).await.is_ok());
    had(&world, set_text(&[Signer::rsa(1).jwk(Some("a"))])).await;
    world.clock.advance(1000);
    is_refused(&world, &text, "signed by a key that is gone").await;
}

#[tokio::test]
async fn keys_of_an_issuer_that_is_away_count_for_a_day_and_a_bad_set_does_not_replace_them() {
    let one = Signer::rsa(0);
    let world = having(&[one.jwk(Some("a"))]).await;
    let now = || {
        let now_s = world.clock.now_ms() / 1000;
        token(&one, json!({"iat": now_s, "exp": now_s + 60}))
    };
    assert!(who(&world, &now()).await.is_ok());
    for (seconds, answer) in [
        (700, Err("it is away".to_owned())),
        (3600, Ok(b"<html>".to_vec())),
        (3600, set_text(&[])),
        (78_499, Err("it is away".to_owned())),
    ] {
        world.clock.advance(seconds * 1000);
        had(&world, answer).await;
        assert!(who(&world, &now()).await.is_ok(), "after {seconds} s");
    }
    world.clock.advance(1000);
    had(&world, Err("it is away".to_owned())).await;
    let over = who(&world, &now()).await;
    assert!(matches!(over, Err(Error::IssuerAway)), "{over:?}");
    assert_eq!(over.unwrap_err().code(), "unavailable");
    had(&world, set_text(&[one.jwk(Some("a"))])).await;
    assert!(who(&world, &now()).await.is_ok());
}

#[tokio::test]
async fn a_token_that_was_shown_before_is_not_checked_again() {
    const COUNT: u32 = 100;
    for signer in [Signer::rsa(0), Signer::ec(), Signer::ed()] {
        let world = World::new();
        let keys = set(&[signer.jwk(Some("a"))]);
        world
            .service
            .issuers_are(vec![(rules("corp", ISS), Some(keys))]);
        let texts: Vec<String> = (0..=COUNT)
            .map(|number| token(&signer, json!({"jti": number})))
            .collect();
        who(&world, &texts[0]).await.unwrap();
        let mut times = Vec::new();
        // The second time nobody asks the table; the third time somebody does, and checks nothing.
        for pass in 0..3 {
            if pass == 2 {
                world.clock.advance(1000);
            }
            let begun = std::time::Instant::now();
            for text in &texts[1..] {
                who(&world, text).await.unwrap();
            }
            times.push(begun.elapsed() / COUNT);
        }
        println!("{}: checked, remembered, asked: {times:?}", signer.alg());
        assert!(times[1] < times[0], "{times:?}");
    }
}
