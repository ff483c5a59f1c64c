//! The root file systems that the operator has given to this node, and the one that an order names.

use crate::Node;
use driver::host::Root;
use std::path::Path;

/// The root of a job or a sandbox: one that was given, by its name, or a directory, by its path.
///
/// # Errors
/// A text for a person. `identity` is that of the root that layers were made on, or that was meant when a
/// sandbox was asked for.
pub(crate) fn find(
    node: &Node,
    asked: Option<&str>,
    identity: Option<&str>,
) -> Result<Option<Root>, String> {
    let Some(asked) = asked else { return Ok(None) };
    if asked.starts_with('/') {
        let root = Root::read(Path::new(asked));
        return root
            .map(Some)
            .map_err(|error| format!("the root file system cannot be read: {error}"));
    }
    let named = |root: &&Root| given(root).is_some_and(|(name, _)| name == asked);
    let Some(root) = node.inner.config.roots.iter().find(named) else {
        return Err(format!(
            "the root file system `{asked}` is not on this node"
        ));
    };
    let is = given(root).map(|(_, identity)| identity);
    if identity.is_some() && identity != is {
        return Err(format!(
            "the root file system `{asked}` is another one now than the sandbox was to have"
        ));
    }
    Ok(Some(root.clone()))
}

/// What the control plane is told: each by its name, with its identity.
pub(crate) fn facts(node: &Node) -> impl Iterator<Item = (String, String)> {
    let roots = node.inner.config.roots.iter().filter_map(given);
    roots.map(|(name, identity)| (format!("{}{name}", model::root::FACT), identity.to_owned()))
}

fn given(root: &Root) -> Option<(&str, &str)> {
    let given = root.given.as_ref()?;
    Some((given.name.as_str(), &given.identity))
}
