//! How much of what was written is shown: pure.
//!
//! A model pays for every byte that it reads, and reads them all. So it gets the beginning and the end, and
//! a cursor for what is between.

/// Bytes of one stream in an answer: some 4,000 tokens.
pub(crate) const SHOWN_MAX_BYTES: usize = 16 * 1024;
/// Bytes of one page that is asked for by a cursor.
pub(crate) const PAGE_BYTES: usize = 16 * 1024;
/// Bytes of one stream that are kept to be read on: what a page every second reads in a minute.
pub(crate) const KEPT_MAX_BYTES: usize = 1 << 20;

/// What is shown of a text, and from where it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    /// All of it, or its beginning and its end with a line between them that says so.
    pub(crate) text: String,
    /// Where what is left out begins, in bytes of what was kept.
    pub(crate) left_at: Option<usize>,
}

/// The beginning and the end of what one stream wrote.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    head: Vec<u8>,
    tail: Vec<u8>,
    total: u64,
}

impl Kept {
    /// Takes what comes next. Nothing grows beyond its bound, however much comes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.total = self.total.saturating_add(bytes.len() as u64);
        let room = KEPT_MAX_BYTES.saturating_sub(self.head.len());
        let (head, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(head);
        self.tail.extend_from_slice(rest);
        // Cut only now and then: a cut moves all that stays.
        if self.tail.len() > 2 * SHOWN_MAX_BYTES {
            self.tail.drain(..self.tail.len() - SHOWN_MAX_BYTES);
        }
    }

    /// How much was written.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// What can be read on with a cursor.
    pub(crate) fn into_head(self) -> Vec<u8> {
        self.head
    }

    /// What is shown of it.
    pub(crate) fn shown(&self) -> Shown {
        let whole = self.head.len().saturating_add(self.tail.len());
        if self.tail.is_empty() && whole <= SHOWN_MAX_BYTES {
            return Shown {
                text: String::from_utf8_lossy(&self.head).into_owned(),
                left_at: None,
            };
        }
        let half = SHOWN_MAX_BYTES / 2;
        let head_end = boundary(&self.head, half);
        let end = if self.tail.len() >= half {
            &self.tail
        } else {
            &self.head
        };
        let tail = end
            .get(end.len() - half.min(end.len())..)
            .unwrap_or_default();
        let tail = skip_part(tail);
        let shown = (head_end + tail.len()) as u64;
        let left = self.total.saturating_sub(shown);
        let head = String::from_utf8_lossy(self.head.get(..head_end).unwrap_or_default());
        let tail = String::from_utf8_lossy(tail);
        Shown {
            text: format!("{head}\n[... {left} bytes left out ...]\n{tail}"),
            left_at: Some(head_end),
        }
    }
}

/// A page of bytes that were kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) text: String,
    /// Where the next page begins; none after the last.
    pub(crate) next: Option<usize>,
}

/// The page that begins at an offset. One beyond the end is empty and the last.
pub(crate) fn page(bytes: &[u8], at: usize, most: usize) -> Page {
    let rest = bytes.get(at..).unwrap_or_default();
    let end = if rest.len() <= most {
        rest.len()
    } else {
        boundary(rest, most)
    };
    let text = String::from_utf8_lossy(rest.get(..end).unwrap_or_default()).into_owned();
    let next = (end < rest.len()).then(|| at.saturating_add(end));
    Page { text, next }
}

/// The largest end up to `most` that cuts no character in two. Bytes that are no text are cut anywhere.
pub(crate) fn boundary(bytes: &[u8], most: usize) -> usize {
    if bytes.len() <= most {
        return bytes.len();
    }
    // A character has at most four bytes, all but the first of which say that they go on.
    let goes_on = |at: &usize| bytes.get(*at).is_some_and(|byte| byte & 0xc0 == 0x80);
    let least = most.saturating_sub(3);
    (least..=most)
        .rev()
        .find(|at| !goes_on(at))
        .filter(|at| *at > 0)
        .unwrap_or(most)
}

/// Without the rest of a character that began before.
fn skip_part(bytes: &[u8]) -> &[u8] {
    let part = bytes.iter().take(3).take_while(|byte| *byte & 0xc0 == 0x80);
    bytes.get(part.count()..).unwrap_or_default()
}

/// A text of at most so many bytes, with its end left out and said so.
pub(crate) fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = boundary(text.as_bytes(), most);
    let left = text.len() - end;
    let head = text.get(..end).unwrap_or_default();
    format!("{head}\n[... {left} bytes left out ...]")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kept(pieces: &[&[u8]]) -> Kept {
        let mut kept = Kept::default();
        for piece in pieces {
            kept.push(piece);
        }
        kept
    }

    #[test]
    fn what_is_short_is_shown_whole_and_what_is_long_by_its_ends() {
        assert_eq!(
            kept(&[b"one\n", b"two\n"]).shown(),
            Shown {
                text: "one\ntwo\n".to_owned(),
                left_at: None
            }
        );
        let long: Vec<u8> = (0..20_000)
            .flat_map(|n| format!("{n}\n").into_bytes())
            .collect();
        let shown = kept(&[&long]).shown();
        let (head, rest) = shown.text.split_once("\n[... ").unwrap();
        assert!(head.starts_with("0\n1\n2\n"));
        let left = long.len() - SHOWN_MAX_BYTES;
        let line = format!("{left} bytes left out ...]\n");
        assert!(rest.starts_with(&line), "{}", rest.get(..60).unwrap());
        assert!(shown.text.ends_with("19999\n"));
        assert_eq!(shown.left_at, Some(head.len()));
    }

    #[test]
    fn the_end_of_what_is_not_kept_is_shown_too() {
        let mut kept = Kept::default();
        for n in 0..300_000 {
            kept.push(format!("{n}\n").as_bytes());
        }
        assert_eq!(kept.total(), 1_988_890);
        assert!(kept.shown().text.ends_with("299999\n"));
        assert!(kept.tail.len() <= 2 * SHOWN_MAX_BYTES);
        assert_eq!(kept.into_head().len(), KEPT_MAX_BYTES);
    }

    #[test]
    fn a_page_beyond_the_end_is_empty_and_the_last() {
        for at in [3, 4, usize::MAX] {
            let expect = Page {
                text: String::new(),
                next: None,
            };
            assert_eq!(page(b"abc", at, 10), expect);
        }
    }

    proptest! {
        #[test]
        fn pages_together_are_the_whole_text(text in "\\PC{0,200}", most in 4_usize..40) {
            let (mut at, mut all) = (0, String::new());
            for _ in 0..300 {
                let page = page(text.as_bytes(), at, most);
                prop_assert!(page.text.len() <= most);
                all.push_str(&page.text);
                match page.next {
                    Some(next) => at = next,
                    None => break,
                }
            }
            prop_assert_eq!(all, text);
        }

        #[test]
        fn bytes_that_are_no_text_end_too(bytes in proptest::collection::vec(any::<u8>(), 0..400), most in 1_usize..9) {
            let (mut at, mut pages) = (0, 0);
            while let Some(next) = page(&bytes, at, most).next {
                prop_assert!(next > at);
                (at, pages) = (next, pages + 1);
            }
            prop_assert!(pages <= bytes.len());
        }

        #[test]
        fn what_is_shown_is_bounded(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20_000), 0..8)) {
            let mut kept = Kept::default();
            for piece in &pieces {
                kept.push(piece);
            }
            // A byte that is no text is shown as three.
            prop_assert!(kept.shown().text.len() <= 3 * SHOWN_MAX_BYTES + 60);
        }
    }
}
