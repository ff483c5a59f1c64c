//! Links of an HTML page, as indexes have them (PEP 503): anchors with attributes. Nothing else of a page is read, a
//! `<base>` neither: what is not understood is not served, and what is served is written anew.

/// An anchor.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Anchor {
    pub(super) href: String,
    pub(super) requires_python: Option<String>,
    pub(super) is_yanked: bool,
}

/// All anchors of a page, at most so many; `None` where there are more.
pub(super) fn anchors(page: &str, most: usize) -> Option<Vec<Anchor>> {
    let mut all = Vec::new();
    let mut rest = page;
    while let Some((_, tag)) = rest.split_once('<') {
        if let Some(comment) = tag.strip_prefix("!--") {
            rest = comment.split_once("-->").map_or("", |(_, after)| after);
            continue;
        }
        let Some((tag, after)) = end_of(tag) else {
            break;
        };
        rest = after;
        let mut letters = tag.chars();
        let is_anchor = letters.next().is_some_and(|c| c.eq_ignore_ascii_case(&'a'))
            && letters.next().is_some_and(|c| c.is_ascii_whitespace());
        if !is_anchor {
            continue;
        }
        if all.len() >= most {
            return None;
        }
        all.extend(anchor(tag.get(1..).unwrap_or_default()));
    }
    Some(all)
}

/// A tag up to its end, which is not the one inside of quotes.
fn end_of(tag: &str) -> Option<(&str, &str)> {
    let mut quote = None;
    for (at, sign) in tag.char_indices() {
        match (quote, sign) {
            (None, '>') => return Some((tag.get(..at)?, tag.get(at + 1..)?)),
            (None, '"' | '\'') => quote = Some(sign),
            (Some(open), sign) if open == sign => quote = None,
            _ => {}
        }
    }
    None
}

/// Of an attribute that is there twice the first counts, as it does for browsers and for pip.
fn anchor(mut text: &str) -> Option<Anchor> {
    let (mut href, mut requires, mut is_yanked) = (None, None, false);
    loop {
        text = text.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '/');
        if text.is_empty() {
            break;
        }
        let end = text.find(|c: char| c.is_ascii_whitespace() || c == '=' || c == '/');
        let (name, after) = text.split_at(end.filter(|end| *end > 0).unwrap_or(text.len()));
        let after = after.trim_start();
        let value;
        (value, text) = match after.strip_prefix('=') {
            Some(after) => quoted(after.trim_start())?,
            None => ("", after),
        };
        match name.to_ascii_lowercase().as_str() {
            "href" => href = href.or_else(|| Some(plain(value))),
            "data-requires-python" => requires = requires.or_else(|| Some(plain(value))),
            "data-yanked" => is_yanked = true,
            _ => {}
        }
    }
    Some(Anchor {
        href: href?,
        requires_python: requires,
        is_yanked,
    })
}

fn quoted(text: &str) -> Option<(&str, &str)> {
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote) {
            return inner.split_once(quote);
        }
    }
    let end = text.find(|c: char| c.is_ascii_whitespace());
    Some(text.split_at(end.unwrap_or(text.len())))
}

/// The entities that indexes write. Another one stays as it is, and then the link is none.
fn plain(text: &str) -> String {
    let mut text = text.trim().to_owned();
    for (entity, sign) in [
        ("&gt;", ">"),
        ("&lt;", "<"),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&#x27;", "'"),
        ("&#43;", "+"),
        // The last, so that what it makes is not read once more.
        ("&amp;", "&"),
    ] {
        text = text.replace(entity, sign);
    }
    text
}

/// A text as it stands in an attribute.
pub(super) fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn anchors_are_read_as_indexes_write_them() {
        let page = "<!DOCTYPE html><base href='https://evil.test/'><a href=\"x-1.whl#sha256=00\" \
                    data-requires-python=\"&gt;=3.8\">x-1.whl</a><br/>\n<A HREF='y>z' data-yanked>y</A>\
                    <!-- <a href=\"hidden\"> --><abbr href=\"no\"><a name=z></a><a class=b href=z>z</a>\
                    <a href=first href=second></a>";
        let all = anchors(page, 9).unwrap();
        let hrefs: Vec<&str> = all.iter().map(|one| one.href.as_str()).collect();
        assert_eq!(hrefs, ["x-1.whl#sha256=00", "y>z", "z", "first"]);
        assert_eq!(all[0].requires_python.as_deref(), Some(">=3.8"));
        assert!(all[1].is_yanked && !all[0].is_yanked);
        assert!(anchors(page, 3).is_none());
    }

    proptest! {
        #[test]
        fn no_page_does_harm(page in "[<>a =/\"'!-]{0,60}(href)?[<>a =/\"'!&;-]{0,60}") {
            prop_assert!(anchors(&page, 1000).is_some());
        }
    }
}
