//! A fuzz target: what a module is asked about. See `fuzz/engine.rs`.
//!
//! Modules themselves are not: one that ends the interpreter is what the child is for, and would end this program.

use crate::serve::{evaluate, read};
use crate::{Verdict, engine};
use std::cell::RefCell;

/// Modules that look at everything of a request with what the language has.
const MODULES: [&str; 3] = [
    "package policy\n\ndefault allow := false\n\nallow if {\n  input.argv[0] == \"ls\"\n  not any_bad\n}\n\n\
     any_bad if {\n  some word in input.argv\n  regex.match(`^-+[a-z]*r`, word)\n}\n\nreason := concat(\" \", input.argv) if not allow\n",
    "package policy\n\nallow if {\n  count(input.network.allow) < 3\n  every host in input.network.allow {\n    endswith(lower(host), \".test\")\n  }\n  \
     input.limits.memory_bytes + 1 < 1e12\n}\n\nreason := sprintf(\"%v and %d\", [input.network, input.limits.memory_bytes])\n",
    "package policy\n\nallow if {\n  some key, value in input\n  value == \"yes\"\n  object.get(input, key, 0) != 1\n  \
     split(value, \"e\")[0] == \"y\"\n}\n\nreason := json.marshal(input)\n",
];

#[test]
fn a_module_says_one_thing_whatever_it_is_asked_about() {
    let engines = MODULES.map(|text| read(text).unwrap());
    let engines = RefCell::new(engines);
    let seeds = [
        r#"{"argv":["ls","-l"],"network":{"allow":["a.test"]},"limits":{"memory_bytes":1}}"#,
        r#"{"argv":["rm","-rf","/"],"network":{"allow":["A.TEST","b.example"]},"limits":{"memory_bytes":1e308}}"#,
        r#"{"a":{"b":[1,2,{"c":"yes"}]},"argv":"ls"}"#,
        "null",
    ];
    let seeds = seeds.map(|text| text.as_bytes().to_vec());
    let words: [&[u8]; 10] = [
        b"\"argv\":",
        b"\"yes\"",
        b"1e308",
        b"-0.0",
        b"18446744073709551616",
        b"[[[[[[[[",
        b"{\"\":",
        b"\\u0000",
        b"\\ud83d\\ude00",
        b"\\uffff",
    ];
    engine::run("rego input", &seeds, &words, |input| {
        let Ok(input) = serde_json::from_slice::<serde_json::Value>(input) else {
            return;
        };
        for module in engines.borrow_mut().iter_mut() {
            let first = evaluate(module, &input);
            if first == Verdict::Stopped {
                continue;
            }
            // What it was asked before is forgotten, unless time ended it.
            let again = evaluate(module, &input);
            assert!(
                again == first || again == Verdict::Stopped,
                "{first:?} became {again:?}"
            );
        }
    });
}
