//! A fuzz target: streams with values of secrets in them. See `fuzz/engine.rs`.

#![expect(
    clippy::print_stdout,
    reason = "how much was tried is what a long run is for"
)]

#[path = "../../../fuzz/engine.rs"]
mod engine;

use scrub::{Cleaner, Known, Shapes};

const VALUE: &[u8] = b"canary/51d0+value=~ and more of it, so that it is long";
const SHORT: &[u8] = b"hunter2";

fn told(cleaner: &mut Cleaner, input: &[u8], size: usize) -> Vec<u8> {
    let mut out: Vec<u8> = input
        .chunks(size)
        .flat_map(|piece| cleaner.feed(piece))
        .collect();
    out.extend(cleaner.finish());
    assert_eq!(cleaner.pending(), 0);
    out
}

#[test]
fn no_stream_tells_a_value_and_none_is_told_otherwise_for_how_it_is_cut() {
    let known = Known::new([("LONG", VALUE), ("SHORT", SHORT)]).unwrap();
    let token = [b"ghp_".as_slice(), &b"a1B2".repeat(9)].concat();
    let seeds = [
        [b"a ".as_slice(), VALUE, b" b ", SHORT, b"\n"].concat(),
        b"Y2FuYXJ5LzUxZDArdmFsdWU9fiBhbmQgbW9yZSBvZiBpdCwgc28gdGhh\ndCBpdCBpcyBsb25n\n".to_vec(),
        b"63616e6172792f353164302b76616c75653d7e20616e64206d6f7265206f\r\n662069742c20736f2074686174206974206973206c6f6e67\n".to_vec(),
        [b"Authorization: Bearer ".as_slice(), &token, b"\n-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n"].concat(),
        b"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln".to_vec(),
    ];
    let words: [&[u8]; 8] = [
        VALUE,
        SHORT,
        &VALUE[..33],
        &VALUE[20..],
        b"\n",
        b"ghp_",
        &token,
        b"Y2Fu",
    ];
    engine::run("scrub stream", &seeds, &words, |input| {
        let mut cleaner = Cleaner::new(known.as_ref(), true).unwrap();
        let whole = told(&mut cleaner, input, input.len().max(1));
        for size in [1, 7] {
            let mut cleaner = Cleaner::new(known.as_ref(), true).unwrap();
            assert_eq!(told(&mut cleaner, input, size), whole);
        }
        for value in [VALUE, SHORT] {
            assert!(!whole.windows(value.len()).any(|part| part == value));
        }
        let mut shapes = Shapes::new();
        drop((shapes.feed(input), shapes.finish()));
    });
}
