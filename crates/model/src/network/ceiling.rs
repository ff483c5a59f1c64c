//! Rules below a ceiling that says modes, lists and amounts, and nothing of rules about requests, packages or proxies:
//! that of a policy, whose packages are put beside. Pure.

use super::{BEYOND, Entry, NetworkMode, NetworkRules, Order};
use crate::dependency::Dependencies;
use crate::spec::{Findings, Invalid};

impl NetworkRules {
    /// These rules, where the ceiling lets out all that they do; with what it denies and how much it lets through.
    /// Rules about requests, those of a profile among them, lists of packages and a proxy to leave through stay: they
    /// only narrow, or are about a host that the ceiling
    /// lets out.
    ///
    /// # Errors
    /// `beyond_profile`, for all that asks for more, each with its place below `network`.
    pub fn below(&self, ceiling: &NetworkRules) -> Result<NetworkRules, Vec<Invalid>> {
        if !self.has_way_out() {
            return Ok(NetworkRules::default());
        }
        let mut found = Findings::default();
        self.check_proxy(ceiling, &mut found);
        let mut bare = self.clone();
        bare.requests.clear();
        bare.profile_requests.clear();
        bare.upstream = None;
        bare.withhold_secrets = false;
        bare.dependencies = Dependencies::default();
        let ruled = self.requests.iter().flat_map(|rule| rule.entries());
        let ruled: Vec<Entry> = ruled.collect();
        let is_allowed = |entry: &Entry| self.allow.iter().any(|mine| mine.covers(entry));
        if self.order == Order::AllowFirst && !ruled.iter().all(is_allowed) {
            // In that order they let nothing out by themselves, and in the other one they would.
            let message = "where an allow list counts first, rules about requests are about hosts that it names";
            found.add("network.rules", BEYOND, message);
        } else if self.is_closed() {
            // In a list that is closed such a rule lets its host out as an entry does.
            let new = ruled.into_iter();
            bare.allow
                .extend(new.filter(|entry| !self.allow.contains(entry)));
        }
        let mut rules = ceiling.narrowed(&bare).unwrap_or_else(|wrong| {
            found.0.extend(wrong);
            NetworkRules::default()
        });
        found.verdict()?;
        // The same again is no change.
        if rules.deny.len() == self.deny.len()
            && rules.deny.iter().all(|entry| self.deny.contains(entry))
        {
            rules.deny.clone_from(&self.deny);
        }
        if self.is_closed() {
            rules.allow.retain(|entry| self.allow.contains(entry));
        }
        rules.requests.clone_from(&self.requests);
        rules.profile_requests.clone_from(&self.profile_requests);
        rules.upstream.clone_from(&self.upstream);
        rules.withhold_secrets = self.withhold_secrets;
        rules.dependencies.clone_from(&self.dependencies);
        Ok(rules)
    }

    /// A proxy that the request chooses sees all that leaves, so it must be a place that the ceiling lets out.
    fn check_proxy(&self, ceiling: &NetworkRules, found: &mut Findings) {
        let Some((host, port)) = self.upstream.as_ref().and_then(super::Upstream::place) else {
            return;
        };
        let names = |list: &[Entry]| list.iter().any(|entry| entry.names(&host, port));
        let is_out = match ceiling.mode {
            NetworkMode::None | NetworkMode::ReadOnly => false,
            NetworkMode::Allowlist => names(&ceiling.allow),
            NetworkMode::Unrestricted => true,
        };
        if !is_out || names(&ceiling.deny) {
            let message = "the profile does not allow the proxy itself";
            found.add("network.upstream", BEYOND, message);
        }
    }
}
