//! Where a job or a sandbox is to be, as options.

use crate::cli::failure::Failure;
use crate::cli::run::variables;
use api::place::Placement;
use std::collections::BTreeMap;

/// What its node must have.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct PlacementArgs {
    /// A label that its node must have, or a tag; may be repeated
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub(crate) on: Vec<String>,
    /// A label or a tag that its node should have: another one gets it if none has, or none takes it in 5 s; may be
    /// repeated
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub(crate) prefer: Vec<String>,
    /// Where its node must stand, such as eu/berlin: there or below
    #[arg(long, value_name = "PLACE")]
    pub(crate) location: Option<String>,
}

impl PlacementArgs {
    pub(crate) fn placement(&self) -> Result<Placement, Failure> {
        Ok(Placement {
            on: labels("--on", &self.on)?,
            prefer: labels("--prefer", &self.prefer)?,
            location: self.location.clone(),
        })
    }
}

/// A name alone is a tag, which is a label without a value.
fn labels(option: &str, asked: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let pair = |one: &String| match one.contains('=') {
        true => one.clone(),
        false => format!("{one}="),
    };
    let pairs: Vec<String> = asked.iter().map(pair).collect();
    variables(option, &pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_alone_asks_for_a_tag() {
        let on = ["gpu", "zone=a", "big="].map(str::to_owned);
        let pairs = [("big", ""), ("gpu", ""), ("zone", "a")];
        let expect = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(labels("--on", &on).unwrap(), BTreeMap::from(expect));
        for wrong in ["", "=a"] {
            assert!(labels("--on", &[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }
}
