//! A fuzz target: the envelopes of a stream of Connect. See `fuzz/engine.rs`.

use super::{Envelopes, HEAD, MESSAGE_MAX};
use crate::engine;
use bytes::Bytes;

/// All messages of a stream that comes in two pieces, and whether it ended in an error.
fn messages(input: &[u8], cut: usize) -> (Vec<Bytes>, bool) {
    let mut envelopes = Envelopes::default();
    let mut all = Vec::new();
    for piece in [&input[..cut], &input[cut..]] {
        envelopes.buffer.extend_from_slice(piece);
        loop {
            match envelopes.next() {
                Ok(Some(message)) => all.push(message),
                Ok(None) => break,
                Err(_) => return (all, true),
            }
        }
    }
    (all, false)
}

fn stream(input: &[u8]) {
    let whole = messages(input, input.len());
    assert!(whole.0.iter().map(|one| one.len() + HEAD).sum::<usize>() <= input.len());
    assert!(whole.0.iter().all(|one| one.len() <= MESSAGE_MAX));
    for cut in [0, input.len() / 3, input.len() / 2] {
        assert_eq!(messages(input, cut), whole);
    }
    for message in &whole.0 {
        drop(super::parse::<serde_json::Value>(message));
    }
}

#[test]
fn envelopes_are_cut_alike_however_they_come() {
    let seeds = [
        b"\0\0\0\0\x02{}".to_vec(),
        b"\0\0\0\0\x02{}\0\0\0\0\x0c{\"input\":{}}\x02\0\0\0\x02{}".to_vec(),
        b"\x01\0\0\0\x02{}".to_vec(),
        b"\0\xff\xff\xff\xff".to_vec(),
    ];
    engine::run(
        "guest envelope",
        &seeds,
        &[b"\0\0\0\0\0", b"{\"a\":", b"\0\x40\0\0", b"[[[["],
        stream,
    );
}
