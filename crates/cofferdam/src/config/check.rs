//! `cofferdam config check`: what a configuration comes to.

use super::{Serving, read};
use crate::cli::failure::Failure;
use crate::cli::table;
use crate::issuers;
use crate::webhook::Webhook;
use api::Code;
use std::path::Path;
use std::process::ExitCode;

/// Prints what was read, with all that was left out and without what is secret.
pub(crate) fn check(path: &Path) -> Result<ExitCode, Failure> {
    let config = read(path)?;
    if config.server.is_none() && config.node.is_none() {
        let message = format!(
            "{}: there is neither [server] nor [node] in it",
            path.display()
        );
        return Err(Failure::new(Code::ConfigInvalid, message));
    }
    if config.server.is_some() {
        files(&config.clone().for_server(false)?)?;
    }
    if config.node.is_some() {
        config.clone().for_node(false)?;
    }
    let text = toml_edit::ser::to_string_pretty(&config);
    let text = text.map_err(|error| Failure::ours("write a configuration", &error))?;
    table::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Whether the keys are there that a server reads at its start.
fn files(serving: &Serving) -> Result<(), Failure> {
    let approvals = serving.server.approvals.as_ref();
    approvals.map(Webhook::of).transpose()?;
    issuers::check(&serving.issuers)
}
