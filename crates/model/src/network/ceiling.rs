//! Rules below a ceiling that says modes, lists and amounts, and nothing of rules about requests, packages, proxies or
//! servers of DNS: that of a policy, whose packages are put beside. Pure.

use super::{BEYOND, Entry, NetworkMode, NetworkRules, Order};
use crate::dependency::Dependencies;
use crate::host::Host;
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
        self.check_places(ceiling, &mut found);
        let mut bare = self.clone();
        bare.requests.clear();
        bare.profile_requests.clear();
        bare.upstream = None;
        bare.upstream_ca = None;
        bare.dns.clear();
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
        rules.upstream_ca.clone_from(&self.upstream_ca);
        rules.dns.clone_from(&self.dns);
        rules.withhold_secrets = self.withhold_secrets;
        rules.dependencies.clone_from(&self.dependencies);
        Ok(rules)
    }

    /// A proxy that the request chooses sees all that leaves, and a server of DNS all that is asked for: so each must
    /// be a place that the ceiling lets out.
    fn check_places(&self, ceiling: &NetworkRules, found: &mut Findings) {
        let proxy = self.upstream.as_ref().and_then(super::Upstream::place);
        if proxy.is_some_and(|(host, port)| !ceiling.is_place_out(&host, port)) {
            let message = "the profile does not allow the proxy itself";
            found.add("network.upstream", BEYOND, message);
        }
        for (index, server) in self.dns.iter().enumerate() {
            let at = server.at();
            if !ceiling.is_place_out(&Host::of_address(at.ip()), at.port()) {
                let message = "the profile does not allow the server of DNS itself";
                found.add(format!("network.dns[{index}]"), BEYOND, message);
            }
        }
    }

    fn is_place_out(&self, host: &Host, port: u16) -> bool {
        let names = |list: &[Entry]| list.iter().any(|entry| entry.names(host, port));
        let is_out = match self.mode {
            NetworkMode::None | NetworkMode::ReadOnly => false,
            NetworkMode::Allowlist => names(&self.allow),
            NetworkMode::Unrestricted => true,
        };
        is_out && !names(&self.deny)
    }
}
