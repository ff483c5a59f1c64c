//! A fuzz target: the parts of a form that a client sends. See `fuzz/engine.rs`.

use super::{HEAD_MAX, Parts, Piece};
use crate::engine;

/// What a form has, however it came: each part with its names and its content, and whether it was refused.
type Form = (Vec<(String, Option<String>, Vec<u8>)>, bool);

fn form(input: &[u8], size: usize) -> Form {
    let mut parts = Parts::of_type("multipart/form-data; boundary=\"x y\"").unwrap();
    let mut all: Vec<(String, Option<String>, Vec<u8>)> = Vec::new();
    for piece in input.chunks(size) {
        parts.push(piece);
        loop {
            match parts.next() {
                Ok(Some(Piece::Begin { field, filename })) => {
                    all.push((field, filename, Vec::new()));
                }
                Ok(Some(Piece::Content(bytes))) => {
                    all.last_mut().unwrap().2.extend_from_slice(&bytes)
                }
                Ok(Some(Piece::End)) => {}
                Ok(Some(Piece::Over)) => return (all, false),
                Ok(None) => break,
                Err(_) => return (all, true),
            }
        }
        assert!(
            parts.buffer.len() <= HEAD_MAX + size,
            "what waits is bounded"
        );
    }
    (all, false)
}

#[test]
fn a_form_is_read_alike_however_it_is_cut() {
    let seeds = [
        b"--x y\r\ncontent-disposition: form-data; name=\"file\"; filename=\"/a b\"\r\n\r\ncontent\r\n--x y--\r\n".to_vec(),
        b"preamble\r\n--x y\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n--x \r\n--x y\r\ncontent-disposition: form-data; name=\"b\\\"\"\r\n\r\n\r\n--x y--".to_vec(),
        b"--x y\r\n\r\n".to_vec(),
    ];
    let words: [&[u8]; 8] = [
        b"\r\n--x y",
        b"--x y--",
        b"\r\n\r\n",
        b"content-disposition: ",
        b"name=\"",
        b"filename=",
        b"\\\"",
        b";",
    ];
    engine::run("guest form", &seeds, &words, |input| {
        let whole = form(input, input.len().max(1));
        for size in [1, 7] {
            assert_eq!(form(input, size), whole);
        }
    });
}
