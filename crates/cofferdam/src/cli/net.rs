//! `cofferdam sandbox net`: what a sandbox may reach.

use crate::cli::args::{NetCommand, rule_text};
use crate::cli::failure::Failure;
use crate::cli::job::row;
use crate::cli::sandbox::{WAIT, about, known};
use crate::cli::secret::uses;
use crate::cli::table;
use api::Code;
use api::client::Client;
use api::network::{Network, NetworkMode};
use api::sandbox::SandboxView;
use std::process::ExitCode;

/// The word for no secrets, which is the name of none beside it.
const NO_SECRETS: &str = "none";

/// Shows the rules, or puts others in their place and shows these.
pub(crate) async fn net(client: &Client, asked: NetCommand) -> Result<ExitCode, Failure> {
    let (id, json) = (asked.id.as_str(), asked.json);
    let asked = changed(asked.net.network(), &asked.secret)?;
    let view = match asked {
        None => client.sandbox_get(known(id)?).await,
        Some(asked) => client.sandbox_network(known(id)?, &asked, Some(WAIT)).await,
    };
    let view: SandboxView = view.map_err(about(id))?;
    table::print(&if json {
        table::to_json(&view)?
    } else {
        table::layout(&["", ""], rows(&view.network))
    })?;
    if view.network_pending {
        table::complain("the sandbox's node has not put these rules in force yet");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// What is asked with the secrets that are named; where none is, those stay.
fn changed(asked: Option<Network>, secrets: &[String]) -> Result<Option<Network>, Failure> {
    if secrets.is_empty() {
        return Ok(asked);
    }
    let Some(asked) = asked else {
        let failure = Failure::new(
            Code::InvalidArgument,
            "secrets for what leaves go with rules: these are all the rules",
        );
        return Err(failure.hint("say the rules too, such as --allow HOST:443"));
    };
    let secrets = match secrets {
        [none] if none == NO_SECRETS => Vec::new(),
        named => uses(named)?,
    };
    Ok(Some(Network {
        secrets: Some(secrets),
        ..asked
    }))
}

/// Rules, a line for each.
pub(crate) fn rows(network: &Network) -> Vec<Vec<String>> {
    let mode = network.mode.unwrap_or(NetworkMode::None);
    let mut rows = vec![row("network", mode.as_str())];
    rows.extend(network.allow.iter().map(|one| row("  allow", one)));
    let presets = network.presets.iter();
    rows.extend(presets.map(|one| row("  preset", one)));
    rows.extend(network.deny.iter().map(|one| row("  deny", one)));
    let rules = network.rules.iter();
    rows.extend(rules.map(|one| row("  rule", &rule_text(one))));
    let of_profile = network.profile_rules.iter();
    rows.extend(of_profile.map(|one| row("  and rule", &rule_text(one))));
    rows.extend(network.upstream.iter().map(|one| row("  through", one)));
    rows.extend(network.dns.iter().map(|one| row("  names by", one)));
    for (manager, list) in &network.dependencies {
        rows.extend(list.iter().map(|one| row(&format!("  {manager}"), one)));
    }
    rows
}
