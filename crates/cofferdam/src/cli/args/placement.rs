//! Where a job or a sandbox is to be, as options.

use crate::cli::failure::Failure;
use crate::cli::run::variables;
use api::place::Placement;

/// What its node must have.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct PlacementArgs {
    /// A label that its node must have; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) on: Vec<String>,
    /// A label that its node should have: another one gets it if none has, or none takes it in 5 s; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) prefer: Vec<String>,
    /// Where its node must stand, such as eu/berlin: there or below
    #[arg(long, value_name = "PLACE")]
    pub(crate) location: Option<String>,
}

impl PlacementArgs {
    pub(crate) fn placement(&self) -> Result<Placement, Failure> {
        Ok(Placement {
            on: variables("--on", &self.on)?,
            prefer: variables("--prefer", &self.prefer)?,
            location: self.location.clone(),
        })
    }
}
