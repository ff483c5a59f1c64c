//! Sealing values of secrets: AES-256-GCM (NIST SP 800-38D), a new data key for each version, wrapped by
//! the master key.
//!
//! Both are bound, as associated data, to the tenant, the id, the name and the version, so that rows that
//! are swapped, renamed or put back do not open. Nonces are 96 random bits and stand before the ciphertext;
//! a data key seals once, and the master key wraps far fewer than the 2^32 keys for which these are safe.
//! A change of the master key wraps the data keys anew and leaves the values as they are.

use crate::hex::hex;
use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use model::id::{PrincipalId, TenantId, VolumeId};
use model::secret::SecretSource;
use std::fmt;
use store::secret::{Sealed, SecretRow};
use zeroize::Zeroizing;

/// Bytes of a master key, and of a data key.
const KEY_BYTES: usize = 32;
/// Bytes before a ciphertext.
const NONCE_BYTES: usize = 12;
/// Room for the tag, so that sealing in place moves nothing and leaves no copy behind.
const TAG_BYTES: usize = 16;
/// Bytes of the longest text of a key: white space is allowed around it.
const KEY_TEXT_MAX: usize = 1024;

/// Why a master key cannot be used. Says nothing of the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It could not be had, or is none.
    #[error("{0}")]
    Unusable(String),
    /// Values here are sealed with another.
    #[error(
        "{versions} values are sealed with the master key {sealed}, and the one given is {given}"
    )]
    Wrong {
        /// At least so many.
        versions: usize,
        /// The name of a key that is needed.
        sealed: String,
        /// The name of the key that was given.
        given: String,
    },
}

impl KeyError {
    /// Its stable code.
    pub fn code(&self) -> &'static str {
        match self {
            KeyError::Unusable(_) => "secret_key_unusable",
            KeyError::Wrong { .. } => "secret_key_wrong",
        }
    }
}

/// A value of a secret. Shown by no `Debug`, and gone from memory when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Zeroizing<Vec<u8>>);

impl SecretValue {
    /// Wraps a value.
    pub fn new(bytes: Vec<u8>) -> SecretValue {
        SecretValue(Zeroizing::new(bytes))
    }

    /// The value.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(..)")
    }
}

/// A key that wraps the data keys. The name tells keys apart and nothing else about them.
pub struct MasterKey {
    id: String,
    wrap: Zeroizing<[u8; KEY_BYTES]>,
    tag: Zeroizing<[u8; KEY_BYTES]>,
    given: Zeroizing<[u8; KEY_BYTES]>,
    volume: Zeroizing<[u8; KEY_BYTES]>,
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({})", self.id)
    }
}

impl MasterKey {
    /// Reads a key from its text: 64 hexadecimal digits, and white space around them.
    ///
    /// # Errors
    /// [`KeyError::Unusable`] for anything else.
    pub fn parse(text: &[u8]) -> Result<MasterKey, KeyError> {
        let unusable = || KeyError::Unusable("a master key is 64 hexadecimal digits".to_owned());
        if text.len() > KEY_TEXT_MAX {
            return Err(unusable());
        }
        let text = text.trim_ascii();
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        let (pairs, rest) = text.as_chunks::<2>();
        if pairs.len() != KEY_BYTES || !rest.is_empty() {
            return Err(unusable());
        }
        for (byte, pair) in key.iter_mut().zip(pairs) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16);
            let (high, low) = digit(0).zip(digit(1)).ok_or_else(unusable)?;
            *byte = u8::try_from(high << 4 | low).map_err(|_| unusable())?;
        }
        Ok(MasterKey::of(&key))
    }

    /// One key for each purpose, so that what one shows says nothing about another.
    fn of(key: &[u8; KEY_BYTES]) -> MasterKey {
        let id = derived(key, b"cofferdam secret: key id");
        let (short, _) = id.split_at(8);
        MasterKey {
            id: hex(short),
            wrap: derived(key, b"cofferdam secret: wrap data keys"),
            tag: derived(key, b"cofferdam secret: compare requests"),
            given: derived(key, b"cofferdam secret: name what was given"),
            volume: derived(key, b"cofferdam volume: tokens of contents"),
        }
    }

    /// Its name: the same for the same key, and of no use to guess it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What opens the content of a volume. Ids are never used twice, so neither is a token.
    pub(crate) fn volume_token(&self, id: &VolumeId) -> String {
        hex(mac(&self.volume, id.as_str().as_bytes()).as_slice())
    }
}

fn derived(key: &[u8; KEY_BYTES], purpose: &[u8]) -> Zeroizing<[u8; KEY_BYTES]> {
    mac(key, purpose)
}

fn mac(key: &[u8; KEY_BYTES], text: &[u8]) -> Zeroizing<[u8; KEY_BYTES]> {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
    let mut out = Zeroizing::new([0; KEY_BYTES]);
    out.copy_from_slice(tag.as_ref());
    out
}

/// The master key in force, and those before it, whose values are sealed anew.
#[derive(Debug)]
pub struct MasterKeys {
    /// Seals what is new.
    pub current: MasterKey,
    /// Open what is old.
    pub before: Vec<MasterKey>,
}

/// A sealed value that does not open: it was changed, or belongs to another row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("open version {version} of {secret}: it was changed, or is of another key or row")]
pub(crate) struct NotOpened {
    secret: String,
    version: u64,
}

impl MasterKeys {
    fn of(&self, key_id: &str) -> Option<&MasterKey> {
        std::iter::once(&self.current)
            .chain(&self.before)
            .find(|key| key.id == key_id)
    }

    /// Whether any of these keys opens what is sealed under this name.
    pub(crate) fn has(&self, key_id: &str) -> bool {
        self.of(key_id).is_some()
    }

    /// Seals a version of a secret.
    pub(crate) fn seal(
        &self,
        row: &SecretRow,
        version: u64,
        value: &SecretValue,
    ) -> Result<Sealed, NotOpened> {
        self.seal_as(row, version, value, false)
    }

    /// Seals where a version of a secret is. It is no secret, and whoever writes into the database must not
    /// be able to point somebody's secret at another place.
    pub(crate) fn seal_source(
        &self,
        row: &SecretRow,
        version: u64,
        source: &SecretSource,
    ) -> Result<Sealed, NotOpened> {
        let text = serde_json::to_vec(source).map_err(|_| not_opened(row, version))?;
        self.seal_as(row, version, &SecretValue::new(text), true)
    }

    fn seal_as(
        &self,
        row: &SecretRow,
        version: u64,
        value: &SecretValue,
        is_source: bool,
    ) -> Result<Sealed, NotOpened> {
        let failed = || not_opened(row, version);
        let mut data_key = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(data_key.as_mut_slice()).map_err(|_| failed())?;
        let master = &self.current;
        Ok(Sealed {
            key_id: master.id.clone(),
            wrapped_key: lock(
                &master.wrap,
                &bound("key", row, version),
                data_key.as_slice(),
            )
            .ok_or_else(failed)?,
            value: lock(
                &data_key,
                &bound(kind(is_source), row, version),
                value.bytes(),
            )
            .ok_or_else(failed)?,
            is_source,
        })
    }

    fn data_key(
        &self,
        row: &SecretRow,
        version: u64,
        sealed: &Sealed,
    ) -> Result<Zeroizing<[u8; KEY_BYTES]>, NotOpened> {
        let failed = || not_opened(row, version);
        let master = self.of(&sealed.key_id).ok_or_else(failed)?;
        let opened = unlock(
            &master.wrap,
            &bound("key", row, version),
            &sealed.wrapped_key,
        );
        let opened = opened.ok_or_else(failed)?;
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        if opened.len() != KEY_BYTES {
            return Err(failed());
        }
        key.copy_from_slice(&opened);
        Ok(key)
    }

    /// Opens a version of a secret.
    pub(crate) fn open(
        &self,
        row: &SecretRow,
        version: u64,
        sealed: &Sealed,
    ) -> Result<SecretValue, NotOpened> {
        let key = self.data_key(row, version, sealed)?;
        unlock(
            &key,
            &bound(kind(sealed.is_source), row, version),
            &sealed.value,
        )
        .map(SecretValue)
        .ok_or_else(|| not_opened(row, version))
    }

    /// Opens where a version of a secret is.
    pub(crate) fn open_source(
        &self,
        row: &SecretRow,
        version: u64,
        sealed: &Sealed,
    ) -> Result<SecretSource, NotOpened> {
        let text = self.open(row, version, sealed)?;
        serde_json::from_slice(text.bytes()).map_err(|_| not_opened(row, version))
    }

    /// The data key of a version, wrapped by the key in force.
    pub(crate) fn rewrap(
        &self,
        row: &SecretRow,
        version: u64,
        sealed: &Sealed,
    ) -> Result<Vec<u8>, NotOpened> {
        let key = self.data_key(row, version, sealed)?;
        let bound = bound("key", row, version);
        lock(&self.current.wrap, &bound, key.as_slice()).ok_or_else(|| not_opened(row, version))
    }

    /// A text that is the same for the same value and tells nobody without the key which it is: whoever
    /// reads the database must not be able to try values against it.
    pub(crate) fn tag(&self, value: &SecretValue) -> String {
        hex(mac(&self.current.tag, value.bytes()).as_slice())
    }

    /// What a value is called that this principal sends in clear: the same for the same, so that a yes to a request that
    /// names it is one to no other value; and of no use to whoever tries values, or is somebody else.
    pub(crate) fn given_name(
        &self,
        (tenant, principal): (&TenantId, &PrincipalId),
        value: &SecretValue,
    ) -> String {
        let mut text = Zeroizing::new(Vec::new());
        for part in [tenant.as_str(), principal.as_str()] {
            text.extend_from_slice(part.as_bytes());
            // No id has this in it.
            text.push(0);
        }
        text.extend_from_slice(value.bytes());
        let tag = mac(&self.current.given, &text);
        let (short, _) = tag.split_at(16);
        format!("given.{}", hex(short))
    }

    /// Whether a token opens the content of a volume. One that was made with an older key does, as long as
    /// that key is named.
    pub(crate) fn opens_volume(&self, id: &VolumeId, token: &str) -> bool {
        let is_it = |key: &MasterKey| {
            let (ours, theirs) = (key.volume_token(id), token.as_bytes());
            verify_slices_are_equal(ours.as_bytes(), theirs).is_ok()
        };
        std::iter::once(&self.current)
            .chain(&self.before)
            .any(is_it)
    }
}

fn not_opened(row: &SecretRow, version: u64) -> NotOpened {
    NotOpened {
        secret: row.id.to_string(),
        version,
    }
}

/// What is sealed.
fn kind(is_source: bool) -> &'static str {
    if is_source { "source" } else { "value" }
}

/// What a ciphertext belongs to. Each part has its length before it, so that no two rows say the same.
fn bound(what: &str, row: &SecretRow, version: u64) -> Vec<u8> {
    let mut text = b"cofferdam secret v1".to_vec();
    for part in [what, row.tenant.as_str(), row.id.as_str(), &*row.name] {
        text.extend_from_slice(&(part.len() as u64).to_le_bytes());
        text.extend_from_slice(part.as_bytes());
    }
    text.extend_from_slice(&version.to_le_bytes());
    text
}

fn lock(key: &[u8; KEY_BYTES], bound: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
    let key = RandomizedNonceKey::new(&AES_256_GCM, key).ok()?;
    let mut text = Zeroizing::new(Vec::with_capacity(plain.len() + TAG_BYTES));
    text.extend_from_slice(plain);
    let nonce = key
        .seal_in_place_append_tag(Aad::from(bound), &mut *text)
        .ok()?;
    Some([nonce.as_ref(), text.as_slice()].concat())
}

fn unlock(key: &[u8; KEY_BYTES], bound: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let key = RandomizedNonceKey::new(&AES_256_GCM, key).ok()?;
    let (nonce, text) = sealed.split_at_checked(NONCE_BYTES)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut text = Zeroizing::new(text.to_vec());
    let len = key
        .open_in_place(nonce, Aad::from(bound), &mut text)
        .ok()?
        .len();
    text.truncate(len);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::id::SecretId;
    use std::collections::BTreeMap;

    fn key(digit: &str) -> MasterKey {
        MasterKey::parse(digit.repeat(64).as_bytes()).unwrap()
    }

    fn keys(digit: &str) -> MasterKeys {
        MasterKeys {
            current: key(digit),
            before: Vec::new(),
        }
    }

    fn row() -> SecretRow {
        SecretRow {
            id: SecretId::from_parts(1, [1; 10]),
            tenant: TenantId::local(),
            name: "token".to_owned(),
            version: 1,
            revision: 1,
            metadata: BTreeMap::new(),
            source: None,
            given: false,
            principal: "uid:0".parse().unwrap(),
            created_at_ms: 1,
            updated_at_ms: 1,
        }
    }

    fn value() -> SecretValue {
        SecretValue::new(b"hunter2".to_vec())
    }

    #[test]
    fn what_is_sealed_opens_and_is_never_twice_the_same() {
        let keys = keys("a");
        let (one, two) = (
            keys.seal(&row(), 1, &value()).unwrap(),
            keys.seal(&row(), 1, &value()).unwrap(),
        );
        assert_eq!(keys.open(&row(), 1, &one), Ok(value()));
        assert_ne!(one.value, two.value);
        assert_ne!(one.wrapped_key, two.wrapped_key);
        assert!(!one.value.windows(4).any(|part| part == b"hunt"));
        let empty = SecretValue::new(Vec::new());
        let sealed = keys.seal(&row(), 1, &empty).unwrap();
        assert_eq!(keys.open(&row(), 1, &sealed), Ok(empty));
    }

    #[test]
    fn a_given_value_is_named_by_itself_and_by_whom_it_is_from() {
        let (local, other) = (TenantId::local(), "ten_b".parse().unwrap());
        let name = |tenant: &TenantId, who: &str, value: &[u8]| {
            let value = SecretValue::new(value.to_vec());
            keys("a").given_name((tenant, &who.parse().unwrap()), &value)
        };
        let one = name(&local, "user:a", b"pw");
        assert_eq!(one.len(), "given.".len() + 32);
        assert_eq!(one, name(&local, "user:a", b"pw"));
        assert_ne!(one, name(&local, "user:b", b"pw"));
        assert_ne!(one, name(&other, "user:a", b"pw"));
        assert_ne!(one, name(&local, "user:a", b"pw2"));
        let tag = keys("a").tag(&SecretValue::new(b"pw".to_vec()));
        assert!(!tag.starts_with(&one["given.".len()..]));
    }

    #[test]
    fn a_row_that_is_swapped_or_renamed_or_put_back_does_not_open() {
        let keys = keys("a");
        let sealed = keys.seal(&row(), 1, &value()).unwrap();
        let other_tenant = SecretRow {
            tenant: "ten_b".parse().unwrap(),
            ..row()
        };
        let other_name = SecretRow {
            name: "tokeN".to_owned(),
            ..row()
        };
        let other_id = SecretRow {
            id: SecretId::from_parts(1, [2; 10]),
            ..row()
        };
        for other in [other_tenant, other_name, other_id] {
            assert!(keys.open(&other, 1, &sealed).is_err(), "{other:?}");
        }
        assert!(keys.open(&row(), 2, &sealed).is_err());
        // The key of one version and the value of another.
        let second = keys.seal(&row(), 2, &value()).unwrap();
        let mixed = Sealed {
            value: second.value,
            ..sealed
        };
        assert!(keys.open(&row(), 1, &mixed).is_err());
    }

    #[test]
    fn a_value_does_not_pass_for_the_place_of_one() {
        let keys = keys("a");
        let source = SecretSource {
            provider: "vault".to_owned(),
            reference: "admin#token".to_owned(),
        };
        let sealed = keys.seal_source(&row(), 1, &source).unwrap();
        assert_eq!(keys.open_source(&row(), 1, &sealed), Ok(source.clone()));
        let text = SecretValue::new(serde_json::to_vec(&source).unwrap());
        let value = keys.seal(&row(), 1, &text).unwrap();
        for changed in [
            Sealed {
                is_source: true,
                ..value
            },
            Sealed {
                is_source: false,
                ..sealed
            },
        ] {
            assert!(keys.open(&row(), 1, &changed).is_err());
            assert!(keys.open_source(&row(), 1, &changed).is_err());
        }
    }

    #[test]
    fn one_changed_bit_or_a_missing_end_does_not_open() {
        let keys = keys("a");
        let sealed = keys.seal(&row(), 1, &value()).unwrap();
        for at in 0..sealed.value.len() {
            let mut changed = sealed.clone();
            changed.value[at] ^= 1;
            assert!(keys.open(&row(), 1, &changed).is_err(), "bit of byte {at}");
            changed.value.truncate(at);
            assert!(keys.open(&row(), 1, &changed).is_err(), "{at} bytes");
        }
        for at in 0..sealed.wrapped_key.len() {
            let mut changed = sealed.clone();
            changed.wrapped_key[at] ^= 1;
            assert!(
                keys.open(&row(), 1, &changed).is_err(),
                "bit of byte {at} of the key"
            );
        }
    }

    #[test]
    fn a_new_master_key_opens_what_was_wrapped_anew_and_the_old_one_does_not() {
        let (old, new) = (keys("a"), keys("b"));
        let sealed = old.seal(&row(), 1, &value()).unwrap();
        assert!(new.open(&row(), 1, &sealed).is_err());
        let both = MasterKeys {
            current: key("b"),
            before: vec![key("a")],
        };
        let wrapped_key = both.rewrap(&row(), 1, &sealed).unwrap();
        let sealed = Sealed {
            key_id: key("b").id,
            wrapped_key,
            ..sealed
        };
        assert_eq!(new.open(&row(), 1, &sealed), Ok(value()));
        assert!(old.open(&row(), 1, &sealed).is_err());
    }

    #[test]
    fn a_key_is_64_digits_and_nothing_else_and_no_debug_shows_it() {
        let text = "0123456789abcdef".repeat(4);
        let key = MasterKey::parse(format!("  {text}\n").as_bytes()).unwrap();
        assert_eq!(
            key.id(),
            MasterKey::parse(text.to_uppercase().as_bytes())
                .unwrap()
                .id()
        );
        let shown = format!("{key:?} {:?}", value());
        assert!(
            !shown.contains("0123456789abcdef") && !shown.contains("hunter2"),
            "{shown}"
        );
        for bad in [
            "",
            "00",
            &text[1..],
            &format!("{text}0"),
            // Not cut off where somebody would stop reading, which would make it one.
            &format!("{text}{}0", " ".repeat(2000)),
            &"g".repeat(64),
            &"+1".repeat(32),
        ] {
            let error = MasterKey::parse(bad.as_bytes()).unwrap_err();
            assert_eq!(error.code(), "secret_key_unusable");
        }
    }

    #[test]
    fn the_tag_of_a_value_depends_on_the_key() {
        assert_eq!(keys("a").tag(&value()), keys("a").tag(&value()));
        assert_ne!(keys("a").tag(&value()), keys("b").tag(&value()));
    }
}
