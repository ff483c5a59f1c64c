//! The query of a plain request. Pure.

/// The value of a key, decoded; the first one where there are several.
pub(super) fn value(query: Option<&str>, wanted: &str) -> Option<String> {
    let pairs = query.unwrap_or_default().split('&');
    pairs
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(key, value)| {
            (decode(key).as_deref() == Some(wanted))
                .then(|| decode(value))
                .flatten()
        })
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'+', _) => bytes.push(b' '),
            (b'%', [high, low, after @ ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = after;
            }
            (b'%', _) => return None,
            (byte, _) => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded() {
        let query = Some("a=1&path=%2Fhome%2Fa+b%C3%A4&path=x&bad=%f");
        assert_eq!(value(query, "path").as_deref(), Some("/home/a b\u{e4}"));
        assert_eq!(value(query, "a").as_deref(), Some("1"));
        assert_eq!(
            (value(query, "bad"), value(query, "none"), value(None, "a")),
            (None, None, None)
        );
    }
}
