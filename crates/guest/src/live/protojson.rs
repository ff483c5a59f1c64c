//! JSON as protocol buffers have it, where a client may write a thing in more than one way.
//!
//! See <https://protobuf.dev/programming-guides/json/>: a field that is null is one that is not there, a number
//! may be text, and bytes are base64 of either alphabet, with padding or without.

use super::failure::Failure;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _, Unexpected};
use serde_json::Value;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Reads a message; no bytes at all are the empty one. Who writes nulls pays for a second look: those that
/// write a message most often, E2B's clients, leave out what is not there.
pub(super) fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, Failure> {
    let json = if json.is_empty() { b"{}" } else { json };
    let unreadable = |error| Failure::invalid(format!("the message cannot be read: {error}"));
    serde_json::from_slice(json).or_else(|error| {
        let Ok(mut value) = serde_json::from_slice::<Value>(json) else {
            return Err(unreadable(error));
        };
        if !drop_nulls(&mut value) {
            return Err(unreadable(error));
        }
        serde_json::from_value(value).map_err(unreadable)
    })
}

/// Takes out the fields that are null, and says whether there were any. What was parsed is at most 128 deep,
/// which is as deep as the parser goes.
fn drop_nulls(value: &mut Value) -> bool {
    match value {
        Value::Object(fields) => {
            let before = fields.len();
            fields.retain(|_, field| !field.is_null());
            let mut dropped = fields.len() < before;
            for field in fields.values_mut() {
                dropped |= drop_nulls(field);
            }
            dropped
        }
        Value::Array(items) => items
            .iter_mut()
            .fold(false, |any, item| any | drop_nulls(item)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// A number that is not negative, or the text of one.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Whole(u64),
    Real(f64),
    Text(String),
}

/// Reads a number of a message into the type of its field.
///
/// # Errors
/// For what is no whole number, or does not fit.
pub(super) fn number<'de, D, N>(deserializer: D) -> Result<N, D::Error>
where
    D: Deserializer<'de>,
    N: TryFrom<u64>,
{
    let whole = match Number::deserialize(deserializer)? {
        Number::Whole(number) => Some(number),
        Number::Real(number) => whole(number),
        Number::Text(text) => {
            let real = || text.parse().ok().and_then(whole);
            text.parse().ok().or_else(real)
        }
    };
    let number = whole.and_then(|number| N::try_from(number).ok());
    number.ok_or_else(|| {
        D::Error::invalid_value(Unexpected::Other("this"), &"a whole number that fits")
    })
}

/// A real number that is a whole one of 32 bits, as no field here has more.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it was looked at before"
)]
fn whole(number: f64) -> Option<u64> {
    let fits = (0.0..=f64::from(u32::MAX)).contains(&number) && number.fract() == 0.0;
    fits.then_some(number as u64)
}

/// Reads bytes.
///
/// # Errors
/// For what is not base64.
pub(super) fn bytes(text: &str) -> Result<Vec<u8>, Failure> {
    let engine = if text.contains(['-', '_']) {
        &URL_SAFE
    } else {
        &STANDARD
    };
    let decoded = engine.decode(text);
    decoded.map_err(|_| Failure::invalid("the input is not base64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Eq, Deserialize)]
    #[serde(default)]
    struct Message {
        text: String,
        #[serde(deserialize_with = "number")]
        count: u16,
        inner: Vec<Inner>,
    }

    #[derive(Debug, Default, PartialEq, Eq, Deserialize)]
    #[serde(default)]
    struct Inner {
        deep: bool,
    }

    fn of(json: &str) -> Result<Message, Failure> {
        parse(json.as_bytes())
    }

    #[test]
    fn a_field_that_is_null_is_not_there() {
        let nulls = r#"{"text": null, "count": null, "inner": [{"deep": null}], "more": null}"#;
        let inner = vec![Inner::default()];
        assert_eq!(
            of(nulls),
            Ok(Message {
                inner,
                ..Message::default()
            })
        );
        assert_eq!(of(""), Ok(Message::default()));
        assert!(of("null").is_err() && of(r#"{"inner": [null]}"#).is_err());
    }

    #[test]
    fn a_number_may_be_text() {
        for json in ["80", "\"80\"", "8e1", "\"8.0e1\"", "80.0"] {
            let message = of(&format!(r#"{{"count": {json}}}"#));
            assert_eq!(message.map(|message| message.count), Ok(80), "{json}");
        }
        for json in [
            "-1",
            "65536",
            "\"65536\"",
            "1.5",
            "\"\"",
            "\"many\"",
            "1e300",
            "\"NaN\"",
            "true",
        ] {
            assert!(of(&format!(r#"{{"count": {json}}}"#)).is_err(), "{json}");
        }
    }

    #[test]
    fn bytes_are_base64_of_either_alphabet_with_padding_or_without() {
        for text in ["+/8=", "+/8", "-_8=", "-_8"] {
            assert_eq!(bytes(text), Ok(vec![0xfb, 0xff]), "{text}");
        }
        assert!(bytes("+_8").is_err() && bytes("a b").is_err() && bytes("é").is_err());
        assert_eq!(bytes(""), Ok(Vec::new()));
    }
}
