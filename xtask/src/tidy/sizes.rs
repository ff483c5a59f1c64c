//! How long a file and a function may be. Nobody means to write a monster; it grows because no
//! machine said stop.

use proc_macro2::Span;
use syn::visit::{self, Visit};
use syn::{Block, ImplItemFn, ItemFn, Signature, TraitItemFn};

use super::{File, Finding, Tree};

const FILE_LINES: usize = 800;
const FUNCTION_LINES: usize = 70;

/// What is longer than the limit and known to be.
///
/// This list only ever gets shorter. An entry that is no longer needed, or whose number is higher
/// than the truth, fails the check, so that what was won is not lost again.
const EXCEPTIONS: &[Exception] = &[];

/// One thing that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Exception {
    path: &'static str,
    /// A function by name, or the file itself.
    function: Option<&'static str>,
    lines: usize,
    /// Why it is one piece and will be until somebody finds better.
    why: &'static str,
}

/// Something that was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Measured {
    path: String,
    function: Option<String>,
    line: usize,
    lines: usize,
}

impl Measured {
    fn limit(&self) -> usize {
        match self.function {
            Some(_) => FUNCTION_LINES,
            None => FILE_LINES,
        }
    }

    fn name(&self) -> String {
        match &self.function {
            Some(name) => format!("`fn {name}`"),
            None => "the file".to_owned(),
        }
    }
}

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut measured = Vec::new();
    for file in tree.with_ending(".rs") {
        match measure(file) {
            Ok(list) => measured.extend(list),
            Err(error) => {
                findings.push(Finding::new(&file.path, format!("cannot be read: {error}")))
            }
        }
    }
    findings.extend(judge(&measured, EXCEPTIONS));
    findings
}

fn judge(measured: &[Measured], exceptions: &[Exception]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for it in measured.iter().filter(|it| it.lines > it.limit()) {
        let known = exceptions.iter().find(|e| covers(e, it));
        let place = format!("{}:{}", it.path, it.line);
        match known {
            Some(known) if it.lines > known.lines => {
                let what = format!(
                    "{} grew from {} lines to {}",
                    it.name(),
                    known.lines,
                    it.lines
                );
                findings.push(Finding::new(place, what));
            }
            Some(known) if it.lines < known.lines => {
                let what = format!(
                    "{} is shorter now: write {} in the list",
                    it.name(),
                    it.lines
                );
                findings.push(Finding::new(place, what));
            }
            Some(_) => {}
            None => {
                let what = format!(
                    "{} has {} lines; {} is the end",
                    it.name(),
                    it.lines,
                    it.limit()
                );
                findings.push(Finding::new(place, what));
            }
        }
    }
    for exception in exceptions {
        if !measured
            .iter()
            .any(|it| it.lines > it.limit() && covers(exception, it))
        {
            let what = format!(
                "{:?} is not too long any more: remove it from the list",
                exception.function
            );
            findings.push(Finding::new(exception.path, what));
        }
        if exception.why.is_empty() {
            findings.push(Finding::new(
                exception.path,
                "has an exception without a reason",
            ));
        }
    }
    findings
}

fn covers(exception: &Exception, it: &Measured) -> bool {
    exception.path == it.path && exception.function == it.function.as_deref()
}

fn measure(file: &File) -> syn::Result<Vec<Measured>> {
    let mut functions = Functions {
        path: &file.path,
        found: vec![Measured {
            path: file.path.clone(),
            function: None,
            line: 1,
            lines: file.text.lines().count(),
        }],
    };
    functions.visit_file(&syn::parse_file(&file.text)?);
    Ok(functions.found)
}

struct Functions<'a> {
    path: &'a str,
    found: Vec<Measured>,
}

impl Functions<'_> {
    /// From the line of `fn` to the line of the closing brace.
    fn add(&mut self, signature: &Signature, block: &Block) {
        let line = |span: Span| span.start().line;
        let first = line(signature.fn_token.span);
        let last = line(block.brace_token.span.close());
        self.found.push(Measured {
            path: self.path.to_owned(),
            function: Some(signature.ident.to_string()),
            line: first,
            lines: last - first + 1,
        });
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, it: &'ast ItemFn) {
        self.add(&it.sig, &it.block);
        visit::visit_item_fn(self, it);
    }

    fn visit_impl_item_fn(&mut self, it: &'ast ImplItemFn) {
        self.add(&it.sig, &it.block);
        visit::visit_impl_item_fn(self, it);
    }

    fn visit_trait_item_fn(&mut self, it: &'ast TraitItemFn) {
        if let Some(block) = &it.default {
            self.add(&it.sig, block);
        }
        visit::visit_trait_item_fn(self, it);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{expect_clean, files, listed};
    use super::*;

    fn function_of(lines: usize) -> String {
        format!("fn long() {{\n{}}}\n", "    f();\n".repeat(lines - 2))
    }

    fn long_function(lines: usize) -> Measured {
        Measured {
            path: "a.rs".to_owned(),
            function: Some("long".to_owned()),
            line: 1,
            lines,
        }
    }

    const KNOWN: Exception = Exception {
        path: "a.rs",
        function: Some("long"),
        lines: 80,
        why: "a table",
    };

    #[test]
    fn files_and_functions_of_this_workspace_are_short() {
        expect_clean(check);
    }

    #[test]
    fn a_function_may_have_seventy_lines_and_not_one_more() {
        assert_eq!(check(&files(&[("a.rs", &function_of(70))])), []);
        let findings = check(&files(&[("a.rs", &function_of(71))]));
        assert_eq!(
            listed(&findings),
            "a.rs:1: `fn long` has 71 lines; 70 is the end"
        );
    }

    #[test]
    fn functions_are_found_wherever_they_hide() {
        let inner = function_of(71);
        for hidden in [
            format!("impl T {{\n{inner}}}"),
            format!("trait T {{\n{inner}}}"),
            format!("mod tests {{\n{inner}}}"),
            format!("fn outer() {{ let x = || {{\n{inner} }}; }}"),
        ] {
            let findings = check(&files(&[("a.rs", &hidden)]));
            assert!(listed(&findings).contains("`fn long` has 71"), "{hidden}");
        }
    }

    #[test]
    fn a_file_may_have_eight_hundred_lines_and_not_one_more() {
        assert_eq!(check(&files(&[("a.rs", &"// x\n".repeat(800))])), []);
        assert_eq!(check(&files(&[("a.rs", &"// x\n".repeat(801))])).len(), 1);
    }

    #[test]
    fn the_list_of_exceptions_only_shrinks() {
        assert_eq!(judge(&[long_function(80)], &[KNOWN]), []);
        for (lines, why) in [(81, "grew"), (79, "shorter now"), (70, "not too long")] {
            let findings = judge(&[long_function(lines)], &[KNOWN]);
            assert_eq!(findings.len(), 1, "{lines}");
            assert!(findings[0].what.contains(why), "{}", findings[0]);
        }
        assert_eq!(judge(&[], &[KNOWN]).len(), 1);
    }

    #[test]
    fn a_file_that_is_not_rust_is_a_finding_and_not_a_crash() {
        assert_eq!(check(&files(&[("a.rs", "fn (")])).len(), 1);
    }
}
