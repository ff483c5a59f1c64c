//! Names that promise nothing. A crate called `utils` becomes the drain that everything flows to,
//! and a type that ends in `Manager` is a place rather than a thing.

use proc_macro2::{Ident, Span};
use syn::visit::{self, Visit};

use super::{File, Finding, Tree};

const CRATES: &[&str] = &[
    "base", "common", "core", "helper", "helpers", "lib", "misc", "shared", "types", "util",
    "utils",
];

const ENDINGS: &[&str] = &["Manager", "Helper", "Helpers", "Util", "Utils"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (package, _) in tree.ours() {
        let last = package.name.rsplit(['-', '_']).next().unwrap_or_default();
        if CRATES.contains(&last) {
            let what = "is a drawer for everything; name the one thing it is for";
            findings.push(Finding::new(&package.name, what));
        }
    }
    for file in tree.with_ending(".rs") {
        findings.extend(types_in(file));
    }
    findings
}

/// A file that cannot be parsed is the finding of another check.
fn types_in(file: &File) -> Vec<Finding> {
    let mut types = Types { found: Vec::new() };
    if let Ok(parsed) = syn::parse_file(&file.text) {
        types.visit_file(&parsed);
    }
    let bad = |name: &str| ENDINGS.iter().any(|ending| name.ends_with(ending));
    types
        .found
        .into_iter()
        .filter(|(name, _)| bad(name))
        .map(|(name, span)| {
            let what = format!("`{name}` names a doer; name what it is");
            Finding::at(file, span.start().line, what)
        })
        .collect()
}

struct Types {
    found: Vec<(String, Span)>,
}

impl Types {
    fn add(&mut self, ident: &Ident) {
        self.found.push((ident.to_string(), ident.span()));
    }
}

impl<'ast> Visit<'ast> for Types {
    fn visit_item_struct(&mut self, it: &'ast syn::ItemStruct) {
        self.add(&it.ident);
        visit::visit_item_struct(self, it);
    }

    fn visit_item_enum(&mut self, it: &'ast syn::ItemEnum) {
        self.add(&it.ident);
        visit::visit_item_enum(self, it);
    }

    fn visit_item_trait(&mut self, it: &'ast syn::ItemTrait) {
        self.add(&it.ident);
        visit::visit_item_trait(self, it);
    }

    fn visit_item_type(&mut self, it: &'ast syn::ItemType) {
        self.add(&it.ident);
        visit::visit_item_type(self, it);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{expect_clean, files, ours};
    use super::*;

    #[test]
    fn names_of_this_workspace_promise_something() {
        expect_clean(check);
    }

    #[test]
    fn a_drawer_crate_is_found() {
        for name in ["common", "cofferdam-utils", "net_types"] {
            let tree = Tree {
                packages: vec![ours(name, &[])],
                ..Tree::default()
            };
            assert_eq!(check(&tree).len(), 1, "{name}");
        }
    }

    #[test]
    fn a_doer_type_is_found_in_every_kind() {
        for text in [
            "struct JobManager;",
            "enum PathUtils {}",
            "trait CopyHelper {}",
            "mod m { type Util = u8; }",
        ] {
            assert_eq!(check(&files(&[("a.rs", text)])).len(), 1, "{text}");
        }
        assert_eq!(
            check(&files(&[("a.rs", "struct Managed; struct Plan;")])),
            []
        );
    }
}
