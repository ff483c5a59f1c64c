//! What a sandbox may reach, as options.

use crate::cli::failure::Failure;
use api::Code;
use api::network::{Network, NetworkMode};

/// What a job or a sandbox may reach.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct NetArgs {
    /// What it may reach: nothing, what --allow and --preset name, only reading in plain HTTP, or everything
    /// public; `allowlist` when only a list is given
    #[arg(long = "net", value_enum, value_name = "MODE")]
    pub(crate) mode: Option<NetMode>,
    /// A destination that it may reach: HOST, *.DOMAIN, ADDRESS or ADDRESS/BITS, and perhaps :PORT; may be
    /// repeated
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) allow: Vec<String>,
    /// A destination that it may not reach, whatever allows it; may be repeated
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) deny: Vec<String>,
    /// Destinations by the name of who has them: pypi, npm, debian, ubuntu, alpine, crates, go, github; may be
    /// repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) preset: Vec<String>,
}

/// What is let out where no list says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum NetMode {
    /// Nothing
    None,
    /// What is listed
    Allowlist,
    /// GET and HEAD over plain HTTP
    ReadOnly,
    /// Everything public
    Unrestricted,
}

impl NetArgs {
    /// What was asked for; `None` when nothing was.
    pub(crate) fn network(self) -> Option<Network> {
        let lists = [&self.allow, &self.deny, &self.preset];
        if self.mode.is_none() && lists.iter().all(|list| list.is_empty()) {
            return None;
        }
        Some(Network {
            mode: self.mode.map(|mode| match mode {
                NetMode::None => NetworkMode::None,
                NetMode::Allowlist => NetworkMode::Allowlist,
                NetMode::ReadOnly => NetworkMode::ReadOnly,
                NetMode::Unrestricted => NetworkMode::Unrestricted,
            }),
            allow: self.allow,
            deny: self.deny,
            presets: self.preset,
            ..Network::default()
        })
    }

    /// The same beside `--internet`, which is short for one of them.
    pub(crate) fn or_internet(self, internet: bool) -> Result<Option<Network>, Failure> {
        match self.network() {
            Some(_) if internet => {
                let message = "--internet is short for --net unrestricted, and beside it there is nothing to say";
                let failure = Failure::new(Code::InvalidArgument, message);
                Err(failure.hint("leave --internet out, or the other options"))
            }
            asked => Ok(asked),
        }
    }
}
