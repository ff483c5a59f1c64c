//! Rules that are both what holds where nobody asks and the most that anybody may ask for. Pure.
//!
//! Whoever asks for more is refused, with the clause that says so: something else than what was asked for, without
//! a word, would be found out in the middle of somebody's work. What cannot be shown to be less is refused, too.

use super::{Entry, NetworkCaps, NetworkMode, NetworkRules, Order, RequestRule};
use crate::dependency::Dependencies;
use crate::limits;
use crate::spec::{Findings, Invalid};

/// The code of everything that asks for more than there may be.
pub const BEYOND: &str = "beyond_profile";

impl NetworkRules {
    /// The rules that hold where `asked` is asked for below `self`: they let out what both let out, and nothing
    /// else. A request without a list of its own has that of the ceiling, where that has one.
    ///
    /// # Errors
    /// `beyond_profile`, for all that asks for more, each with its place below `network`.
    pub fn narrowed(&self, asked: &NetworkRules) -> Result<NetworkRules, Vec<Invalid>> {
        if asked == self {
            return Ok(self.clone());
        }
        if !asked.has_way_out() {
            return Ok(NetworkRules::default());
        }
        let (ceiling, asked) = (self.in_one_order(), asked.in_one_order());
        let mut found = Findings::default();
        check_mode(&ceiling, &asked, &mut found);
        check_lists(&ceiling, &asked, &mut found);
        check_order(&ceiling, &asked, &mut found);
        let caps = narrowed_caps(&ceiling.caps, &asked.caps, &mut found);
        let deny = united(&ceiling.deny, &asked.deny, &mut found);
        if asked.rest() != NetworkRules::default() && asked.rest() != ceiling.rest() {
            let message = "a proxy to leave through and servers of DNS are said by the profile alone: leave them out, or \
                           write them into a profile and name that";
            let field = match asked.dns == ceiling.dns || asked.dns.is_empty() {
                true => "network.upstream",
                false => "network.dns",
            };
            found.add(field, BEYOND, message);
        }
        check_requests(&ceiling, &asked, &mut found);
        found.verdict()?;
        // From the ceiling, so that whatever is not named here is as it says.
        let mut rules = ceiling.clone();
        if asked.requests == ceiling.requests {
            rules.profile_requests = Vec::new();
        } else {
            rules.profile_requests.clone_from(&ceiling.requests);
        }
        rules.requests.clone_from(&asked.requests);
        rules.withhold_secrets |= asked.withhold_secrets;
        rules.dependencies = ceiling.dependencies.and(&asked.dependencies);
        rules.mode = asked.mode;
        if asked.is_closed() || !ceiling.is_closed() {
            rules.allow = asked.allow;
            rules.presets = asked.presets;
        } else {
            // Its rules about requests named hosts, and do so no more.
            rules
                .allow
                .extend(ceiling.requests.iter().flat_map(RequestRule::entries));
            let mut found = Findings::default();
            found.count(
                "network.allow",
                rules.allow.len(),
                limits::NETWORK_ENTRIES_MAX,
            );
            found.verdict()?;
        }
        if ceiling.is_closed() && !rules.is_closed() {
            // A list with nothing in it, which no door lets in, lets nothing out.
            return Ok(NetworkRules::default());
        }
        rules.deny = deny;
        rules.order = asked.order;
        rules.caps = caps;
        Ok(rules)
    }

    fn is_without_lists(&self) -> bool {
        self.allow.is_empty() && self.presets.is_empty()
    }

    /// Whether the rules about requests are about nothing that the allow list does not name.
    fn lists_all_requests(&self) -> bool {
        let mut entries = self.requests.iter().flat_map(RequestRule::entries);
        entries.all(|entry| listed(self).any(|own| own.covers(&entry)))
    }

    /// The same rules, with the deny list first wherever that can be said in this order.
    pub(super) fn in_one_order(&self) -> NetworkRules {
        let mut rules = self.clone();
        if self.order == Order::AllowFirst && !self.is_without_lists() {
            // In a list that is closed, rules about requests name their hosts; in these lists they did not.
            let is_list = self.deny.iter().any(Entry::is_everything) && self.lists_all_requests();
            if is_list && !self.is_closed() {
                rules.mode = NetworkMode::Allowlist;
            }
            if rules.is_closed() {
                // What is not allowed is denied anyway, and what is allowed was not looked for in this list.
                rules.deny.clear();
            } else if !rules.deny.is_empty() {
                return rules;
            }
        }
        rules.order = Order::DenyFirst;
        if rules.mode == NetworkMode::Unrestricted {
            // Everything is allowed, also without them.
            rules.allow.clear();
            rules.presets.clear();
        }
        rules
    }

    /// Nothing of what this file compares: a clause that is added to the rules is not lost here, and cannot be
    /// asked for below a ceiling until somebody has said how it narrows.
    fn rest(&self) -> NetworkRules {
        let mut rest = self.clone();
        rest.mode = NetworkMode::default();
        rest.allow.clear();
        rest.deny.clear();
        rest.presets.clear();
        rest.order = Order::default();
        rest.caps = NetworkCaps::default();
        rest.requests.clear();
        rest.profile_requests.clear();
        rest.withhold_secrets = false;
        rest.dependencies = Dependencies::default();
        rest
    }
}

/// What the allow list of rules names.
fn listed(rules: &NetworkRules) -> impl Iterator<Item = Entry> {
    let presets = rules.presets.iter().flat_map(|preset| preset.entries());
    rules.allow.iter().cloned().chain(presets)
}

/// What rules name, at the ports that they name: by their lists, and by those about requests.
fn named(rules: &NetworkRules) -> impl Iterator<Item = Entry> {
    let requests = rules.requests.iter().flat_map(RequestRule::entries);
    listed(rules).chain(requests)
}

/// Rules about requests that are asked for hold beside the ceiling's, so they let out nothing that those do not. In a
/// list that is closed they name their hosts, and in mode `read-only` they open HTTPS: both only where the ceiling
/// does.
fn check_requests(ceiling: &NetworkRules, asked: &NetworkRules, found: &mut Findings) {
    let has_layer = asked.profile_requests.is_empty() || asked.profile_requests == ceiling.requests;
    // Of a profile that says there are rules of another one beside its own: three are no two.
    if !has_layer || !ceiling.profile_requests.is_empty() {
        let message =
            "which rules of the profile hold beside these is not to be asked for; leave it out";
        found.add("network.profile_rules", BEYOND, message);
    }
    for (index, rule) in asked.requests.iter().enumerate() {
        let place = format!("network.rules[{index}]");
        let is_named = |entry: &Entry| named(ceiling).any(|mine| mine.covers(entry));
        let beyond = rule.entries().find(|entry| !is_named(entry));
        if let Some(entry) = beyond.filter(|_| ceiling.is_closed()) {
            let message = format!(
                "the profile does not allow `{entry}`; name what it allows, such as one port by `https://`"
            );
            found.add(place, BEYOND, message);
        } else if ceiling.mode == NetworkMode::ReadOnly && !is_looked_into(ceiling, rule) {
            let message = format!(
                "the profile reads over plain `http://` alone, and `{rule}` would open `https://`; a rule of the \
                 profile can"
            );
            found.add(place, BEYOND, message);
        }
    }
}

fn is_looked_into(ceiling: &NetworkRules, rule: &RequestRule) -> bool {
    let is_about = |entry: &Entry| {
        let mut own = ceiling.requests.iter().flat_map(RequestRule::entries);
        own.any(|own| own.covers(entry))
    };
    rule.entries().all(|entry| is_about(&entry))
}

fn check_mode(ceiling: &NetworkRules, asked: &NetworkRules, found: &mut Findings) {
    use NetworkMode as M;
    let fits = match (ceiling.mode, asked.mode) {
        (_, M::None)
        | (M::Unrestricted, _)
        | (M::ReadOnly, M::ReadOnly)
        | (M::Allowlist, M::Allowlist | M::ReadOnly) => true,
        (M::None | M::ReadOnly, M::Allowlist)
        | (M::None, M::ReadOnly)
        | (M::None | M::Allowlist | M::ReadOnly, M::Unrestricted) => false,
    };
    if !fits {
        let message = format!(
            "the profile has mode `{}`, and `{}` is more",
            ceiling.mode, asked.mode
        );
        found.add("network.mode", BEYOND, message);
    }
}

fn check_lists(ceiling: &NetworkRules, asked: &NetworkRules, found: &mut Findings) {
    if !ceiling.is_closed() {
        return;
    }
    let is_covered = |entry: &Entry| named(ceiling).any(|mine| mine.covers(entry));
    for (index, entry) in asked.allow.iter().enumerate() {
        if !is_covered(entry) {
            let message = format!("the profile does not allow `{entry}`");
            found.add(format!("network.allow[{index}]"), BEYOND, message);
        }
    }
    for (index, preset) in asked.presets.iter().enumerate() {
        if !preset.entries().all(|entry| is_covered(&entry)) {
            let message = format!("the profile does not allow all of `{preset}`");
            found.add(format!("network.presets[{index}]"), BEYOND, message);
        }
    }
}

/// Where what is allowed counts first, it would pass by what the profile denies.
fn check_order(ceiling: &NetworkRules, asked: &NetworkRules, found: &mut Findings) {
    let differs = ceiling.order == Order::AllowFirst && !ceiling.deny.is_empty();
    let passes_by = asked.order == Order::AllowFirst && !ceiling.deny.is_empty();
    if differs || passes_by {
        let message = "the profile denies destinations, and an allow list that counts first would pass them by";
        found.add("network.order", BEYOND, message);
    }
}

fn united(ceiling: &[Entry], asked: &[Entry], found: &mut Findings) -> Vec<Entry> {
    let mut all = ceiling.to_vec();
    let new = asked.iter().filter(|entry| !ceiling.contains(entry));
    all.extend(new.cloned());
    if all.len() > limits::NETWORK_ENTRIES_MAX {
        let message = "with what the profile denies, these are too many";
        found.add("network.deny", "too_many", message);
    }
    all
}

fn narrowed_caps(ceiling: &NetworkCaps, asked: &NetworkCaps, found: &mut Findings) -> NetworkCaps {
    let mut lesser = |field: &str, most: Option<u64>, wanted: Option<u64>| {
        if let (Some(most), Some(wanted)) = (most, wanted)
            && wanted > most
        {
            let message = format!("the profile has at most {most}");
            found.add(format!("network.limits.{field}"), BEYOND, message);
        }
        wanted.or(most)
    };
    let small = |cap: Option<u32>| cap.map(u64::from);
    let as_small = |cap: Option<u64>| cap.and_then(|cap| u32::try_from(cap).ok());
    NetworkCaps {
        connections: as_small(lesser(
            "connections",
            small(ceiling.connections),
            small(asked.connections),
        )),
        per_minute: as_small(lesser(
            "per_minute",
            small(ceiling.per_minute),
            small(asked.per_minute),
        )),
        bytes: lesser("bytes", ceiling.bytes, asked.bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Denial, Field, How, NetworkAsked, Preset, Request, RequestAsked};
    use super::*;
    use crate::host::Host;
    use proptest::prelude::*;
    use std::net::IpAddr;

    fn rules(text: &str) -> NetworkRules {
        let mut asked = NetworkAsked::default();
        for word in text.split(' ') {
            let (sign, rest) = word.split_at(1);
            match sign {
                "+" => asked.allow.push(rest.to_owned()),
                "-" => asked.deny.push(rest.to_owned()),
                "@" => asked.presets.push(rest.to_owned()),
                "#" => asked.caps.bytes = rest.parse().ok(),
                _ if word == "first" => asked.order = Order::AllowFirst,
                _ => {
                    asked.mode = NetworkMode::ALL
                        .into_iter()
                        .find(|mode| mode.as_str() == word)
                }
            }
        }
        NetworkRules::read(&asked).unwrap()
    }

    fn told(ceiling: &str, asked: &str) -> String {
        match rules(ceiling).narrowed(&rules(asked)) {
            Ok(rules) => {
                let list = |sign: &str, list: &[Entry]| -> String {
                    list.iter().map(|one| format!(" {sign}{one}")).collect()
                };
                let presets: String = rules.presets.iter().map(|one| format!(" @{one}")).collect();
                let bytes = rules.caps.bytes.map(|cap| format!(" #{cap}"));
                let first = (rules.order == Order::AllowFirst).then_some(" first");
                [
                    rules.mode.to_string(),
                    list("+", &rules.allow),
                    list("-", &rules.deny),
                    presets,
                    bytes.unwrap_or_default(),
                    first.unwrap_or_default().to_owned(),
                ]
                .concat()
            }
            Err(found) => {
                let places = found.iter().map(|one| one.field.as_str());
                format!("beyond {}", places.collect::<Vec<_>>().join(" "))
            }
        }
    }

    #[test]
    fn a_request_narrows_what_a_profile_allows_or_is_told_the_clause() {
        let list = "+a.example:443 +*.b.example +9.0.0.0/8 @pypi -9.9.0.0/16 #100";
        for (ceiling, asked, expect) in [
            ("unrestricted", "none", "none"),
            ("none", "none", "none"),
            ("none", "+a.example", "beyond network.mode network.allow[0]"),
            ("unrestricted", "unrestricted", "unrestricted"),
            ("unrestricted", "+a.example", "allowlist +a.example"),
            (
                "unrestricted -9.0.0.0/8",
                "+a.example -1.1.1.1",
                "allowlist +a.example -9.0.0.0/8 -1.1.1.1",
            ),
            ("read-only", "+a.example", "beyond network.mode"),
            ("read-only", "read-only +a.example", "read-only +a.example"),
            (list, "unrestricted", "beyond network.mode"),
            (
                list,
                "+a.example:443",
                "allowlist +a.example:443 -9.9.0.0/16 #100",
            ),
            (list, "+a.example", "beyond network.allow[0]"),
            (
                list,
                "+x.b.example:22 +*.y.b.example",
                "allowlist +x.b.example:22 +*.y.b.example -9.9.0.0/16 #100",
            ),
            (list, "+b.example", "beyond network.allow[0]"),
            (
                list,
                "+9.1.0.0/16:80",
                "allowlist +9.1.0.0/16:80 -9.9.0.0/16 #100",
            ),
            (list, "+8.0.0.0/7", "beyond network.allow[0]"),
            (
                list,
                "+pypi.org:443",
                "allowlist +pypi.org:443 -9.9.0.0/16 #100",
            ),
            (list, "@pypi @npm", "beyond network.presets[1]"),
            (list, "@pypi #7", "allowlist -9.9.0.0/16 @pypi #7"),
            (list, "@pypi #101", "beyond network.limits.bytes"),
            (
                list,
                "read-only",
                "read-only +a.example:443 +*.b.example +9.0.0.0/8 -9.9.0.0/16 @pypi #100",
            ),
        ] {
            assert_eq!(told(ceiling, asked), expect, "{asked} below {ceiling}");
        }
    }

    /// As E2B's clients say it: what is allowed, and everything else denied.
    #[test]
    fn a_request_in_the_other_order_narrows_where_that_can_be_shown() {
        for (ceiling, asked, expect) in [
            (
                "+*.b.example",
                "unrestricted +x.b.example -* first",
                "allowlist +x.b.example",
            ),
            (
                "+*.b.example",
                "unrestricted +x.b.example -1.1.1.1 first",
                "beyond network.mode",
            ),
            (
                "unrestricted",
                "unrestricted +1.1.1.1 -1.0.0.0/8 first",
                "unrestricted +1.1.1.1 -1.0.0.0/8 first",
            ),
            (
                "unrestricted -1.0.0.0/8",
                "unrestricted +1.1.1.1 -1.1.0.0/16 first",
                "beyond network.order",
            ),
        ] {
            assert_eq!(told(ceiling, asked), expect, "{asked} below {ceiling}");
        }
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let place = prop_oneof![
            Just("*"),
            Just("a.example"),
            Just("*.example"),
            Just("*.a.example"),
            Just("b.a.example"),
            Just("pypi.org"),
            Just("1.0.0.0/8"),
            Just("1.1.0.0/16"),
            Just("1.1.1.1"),
            Just("9.9.9.9"),
        ];
        let port = prop_oneof![Just(""), Just(""), Just(":443"), Just(":80")];
        (place, port).prop_map(|(place, port)| format!("{place}{port}").parse().unwrap())
    }

    prop_compose! {
        /// All that rows can hold, also what no door would let in.
        fn any_rules()(
            mode in prop::sample::select(NetworkMode::ALL.to_vec()),
            allow in prop::collection::vec(entry(), 0..4),
            deny in prop::collection::vec(entry(), 0..3),
            presets in prop::collection::vec(Just(Preset::Pypi), 0..2),
            first in any::<bool>(),
            bytes in prop::option::of(1_u64..4),
            requests in prop::collection::vec(request(), 0..3),
        ) -> NetworkRules {
            NetworkRules {
                requests,
                mode, allow, deny, presets,
                order: if first { Order::AllowFirst } else { Order::DenyFirst },
                caps: NetworkCaps { bytes, ..NetworkCaps::default() },
                ..NetworkRules::default()
            }
        }
    }

    /// A rule about requests to a host, at one port or at both that are usual.
    fn request() -> impl Strategy<Value = RequestRule> {
        let host = prop::sample::select(vec!["a.example", "*.a.example", "c.example", "1.1.1.1"]);
        let methods = prop::sample::select(vec![&[][..], &["GET"], &["POST"], &["GET", "POST"]]);
        let paths = prop::sample::select(vec![&[][..], &["/a/*"], &["/a/b"]]);
        let port = prop::option::of(Just(443_u16));
        let require = prop::sample::select(vec![&[][..], &[], &["x-a"]]);
        let refuse = prop::sample::select(vec![&[][..], &[], &["x-b"]]);
        let all = (host, port, methods, paths, require, refuse);
        all.prop_map(|(host, port, methods, paths, require, refuse)| {
            let texts =
                |list: &[&str]| -> Vec<String> { list.iter().map(ToString::to_string).collect() };
            let asked = RequestAsked {
                host: host.to_owned(),
                port,
                methods: texts(methods),
                paths: texts(paths),
                require: texts(require)
                    .into_iter()
                    .map(|name| (name, "1".to_owned()))
                    .collect(),
                refuse: texts(refuse),
                ..RequestAsked::default()
            };
            let asked = NetworkAsked {
                requests: vec![asked],
                ..NetworkAsked::default()
            };
            NetworkRules::read(&asked).unwrap().requests.remove(0)
        })
    }

    const HOSTS: [&str; 7] = [
        "a.example",
        "b.a.example",
        "c.example",
        "pypi.org",
        "1.1.1.1",
        "1.2.3.4",
        "9.9.9.9",
    ];

    fn address() -> impl Strategy<Value = IpAddr> {
        let text = prop_oneof![
            Just("1.1.1.1"),
            Just("1.2.3.4"),
            Just("9.9.9.9"),
            Just("8.8.8.8")
        ];
        text.prop_map(|text| text.parse().unwrap())
    }

    fn with_rule(text: &str, (host, port): (&str, Option<u16>), methods: &[&str]) -> NetworkRules {
        let asked = RequestAsked {
            host: host.to_owned(),
            port,
            methods: methods.iter().map(ToString::to_string).collect(),
            ..RequestAsked::default()
        };
        // Without a list of hosts the rule is the list.
        let without = match text {
            "allowlist" => NetworkRules {
                mode: NetworkMode::Allowlist,
                ..NetworkRules::default()
            },
            text => rules(text),
        };
        NetworkRules {
            requests: RequestRule::read(&[asked]).unwrap(),
            ..without
        }
    }

    #[test]
    fn a_rule_of_a_profile_holds_beside_those_that_are_asked_for_and_brings_no_host_in() {
        for ceiling in ["unrestricted", "allowlist +c.example"] {
            let ceiling = with_rule(ceiling, ("a.example", Some(443)), &["GET"]);
            let other = ceiling.narrowed(&rules("allowlist +c.example")).unwrap();
            assert_eq!(
                (&other.requests, &other.profile_requests),
                (&Vec::new(), &ceiling.requests)
            );
            assert_eq!(ceiling.narrowed(&other).as_ref(), Ok(&other));
            let asks = with_rule("allowlist", ("a.example", Some(443)), &["GET", "POST"]);
            let both = ceiling.narrowed(&asks).unwrap();
            assert_eq!(
                (&both.requests, &both.profile_requests),
                (&asks.requests, &ceiling.requests)
            );
            let host = Host::parse("a.example").unwrap();
            let judge = |method| {
                let asked = Request {
                    host: &host,
                    port: 443,
                    method,
                    path: "/",
                    fields: &[],
                };
                both.judge(asked).map_err(|verdict| verdict.denial)
            };
            assert_eq!(judge("GET"), Ok(Vec::new()));
            assert_eq!(judge("POST"), Err(Some(Denial::HttpRule)));
        }
    }

    #[test]
    fn fields_that_a_profile_and_a_request_are_about_are_looked_at_one_beside_the_other() {
        let with = |require: &[(&str, &str)], refuse: &[&str]| {
            let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            let asked = RequestAsked {
                host: "a.example".to_owned(),
                require: require.iter().map(pair).collect(),
                refuse: refuse.iter().map(ToString::to_string).collect(),
                ..RequestAsked::default()
            };
            NetworkRules {
                requests: RequestRule::read(&[asked]).unwrap(),
                ..rules("unrestricted")
            }
        };
        let (ceiling, asks) = (with(&[], &["cookie"]), with(&[("x-team", "red")], &[]));
        let both = ceiling.narrowed(&asks).unwrap();
        assert_eq!(both.profile_requests, ceiling.requests);
        let host = Host::parse("a.example").unwrap();
        for (fields, is_out) in [
            (&[("x-team", &b"red"[..])][..], true),
            (&[], false),
            (&[("x-team", &b"red"[..]), ("Cookie", &b"a"[..])], false),
        ] {
            let asked = Request {
                host: &host,
                port: 443,
                method: "GET",
                path: "/",
                fields,
            };
            assert_eq!(both.judge(asked).is_ok(), is_out, "{fields:?}");
        }
    }

    /// In E2B's order, where everything is denied, the lists alone let out: a rule only narrows.
    #[test]
    fn a_rule_about_requests_lets_out_nothing_where_the_lists_alone_do() {
        let lists = "unrestricted +a.example -* first";
        let host = Host::parse("1.1.1.1").unwrap();
        let leaves = |rules: &NetworkRules| rules.before(How::Tunnel, &host, 443).is_allowed();
        let with = with_rule(lists, ("1.1.1.1", Some(443)), &[]);
        assert!(!leaves(&with));
        // As a ceiling, and as what is asked for.
        let refused = with.narrowed(&rules("+1.1.1.1:443")).unwrap_err();
        assert_eq!(refused[0].code, BEYOND);
        assert!(!leaves(&rules("unrestricted").narrowed(&with).unwrap()));
        // One about what the list names is as good as before.
        let with = with_rule(lists, ("a.example", Some(443)), &["GET"]);
        let both = with.narrowed(&rules("+a.example:443")).unwrap();
        assert_eq!(both.profile_requests, with.requests);
    }

    #[test]
    fn a_rule_about_requests_that_opens_what_a_profile_does_not_is_refused_with_its_place() {
        let told = |ceiling: &NetworkRules, asked: &NetworkRules| match ceiling.narrowed(asked) {
            Ok(_) => String::new(),
            Err(found) => found[0].field.clone(),
        };
        let asked = with_rule("allowlist", ("a.example", None), &["GET"]);
        assert_eq!(told(&rules("+a.example"), &asked), "");
        assert_eq!(told(&rules("+a.example:443"), &asked), "network.rules[0]");
        assert_eq!(told(&rules("+b.example"), &asked), "network.rules[0]");
        let reads = NetworkRules {
            mode: NetworkMode::ReadOnly,
            ..asked.clone()
        };
        assert_eq!(told(&rules("read-only"), &reads), "network.rules[0]");
        assert_eq!(
            told(&rules("read-only +a.example"), &reads),
            "network.rules[0]"
        );
        assert_eq!(
            told(&with_rule("read-only", ("*.example", None), &[]), &reads),
            ""
        );
        let layered = NetworkRules {
            profile_requests: asked.requests.clone(),
            ..asked.clone()
        };
        assert_eq!(
            told(&rules("unrestricted"), &layered),
            "network.profile_rules"
        );
        let proxied = NetworkRules {
            upstream: "socks5://a.example:1".parse().ok(),
            ..asked
        };
        assert_eq!(told(&rules("unrestricted"), &proxied), "network.upstream");
    }

    #[test]
    fn a_server_of_dns_is_the_profiles_to_say_and_below_a_policy_a_place_that_it_lets_out() {
        let by = |mode: &str, server: &str| NetworkRules {
            dns: vec![server.parse().unwrap()],
            ..rules(mode)
        };
        let asked = by("unrestricted", "9.9.9.9");
        let field = |found: Vec<Invalid>| found[0].field.clone();
        assert_eq!(
            field(rules("unrestricted -1.1.1.1").narrowed(&asked).unwrap_err()),
            "network.dns"
        );
        let ceiling = by("unrestricted -1.1.1.1", "9.9.9.9");
        assert_eq!(
            ceiling.narrowed(&rules("unrestricted")).unwrap().dns,
            asked.dns
        );
        for (ceiling, is_out) in [
            ("unrestricted", true),
            ("unrestricted -9.9.9.9:53", false),
            ("unrestricted -9.9.9.9:443", true),
        ] {
            let below = asked.below(&rules(ceiling));
            assert_eq!(below.is_ok(), is_out, "{ceiling}");
            match below {
                Ok(below) => assert_eq!(below.dns, asked.dns),
                Err(found) => assert_eq!(field(found), "network.dns[0]"),
            }
        }
        let listed = by("+a.example", "9.9.9.9");
        assert!(listed.below(&rules("+a.example +9.9.9.9:53")).is_ok());
        assert!(listed.below(&rules("+a.example")).is_err());
    }

    #[test]
    fn secrets_are_withheld_where_either_says_so() {
        let held = NetworkRules {
            withhold_secrets: true,
            ..rules("unrestricted")
        };
        for (ceiling, asked) in [
            (&rules("unrestricted -1.1.1.1"), &held),
            (&held, &rules("+a.example")),
        ] {
            assert!(ceiling.narrowed(asked).unwrap().withhold_secrets);
        }
    }

    /// Whether a request leaves, as the proxy decides it: in a tunnel of TLS or in clear.
    fn leaves(
        rules: &NetworkRules,
        is_tls: bool,
        (asked, has_body): (Request<'_>, bool),
        to: &[IpAddr],
    ) -> bool {
        let (host, port, method) = (asked.host, asked.port, asked.method);
        if is_tls && !rules.looks_into(host, port) {
            return rules.after(How::Tunnel, host, port, to).is_allowed();
        }
        let how = How::Request { method, has_body };
        rules.after(how, host, port, to).is_allowed() && rules.judge(asked).is_ok()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]
        #[test]
        fn nothing_is_let_out_that_either_of_the_two_would_not(
            ceiling in any_rules(), asked in any_rules(),
            host in prop::sample::select(HOSTS.to_vec()),
            greeting in prop::option::of(prop::sample::select(HOSTS.to_vec())),
            hides in any::<bool>(),
            port in prop::sample::select(vec![443_u16, 80, 22]),
            addresses in prop::collection::vec(address(), 1..3),
            how in prop::sample::select(vec![
                How::Tunnel,
                How::Request { method: "GET", has_body: false },
                How::Request { method: "POST", has_body: true },
            ]),
        ) {
            let Ok(both) = ceiling.narrowed(&asked) else { return Ok(()) };
            let host = Host::parse(host).unwrap();
            let addresses = match host {
                Host::Address(address) => vec![address],
                Host::Name(_) => addresses,
            };
            let greeting = greeting.map(|name| Host::parse(name).unwrap());
            let passes = |rules: &NetworkRules| {
                rules.after(how, &host, port, &addresses).is_allowed()
                    && rules.greeting(&host, port, greeting.as_ref()).is_allowed()
                    && (!hides || rules.hiding(&host, port).is_allowed())
            };
            if passes(&both) {
                prop_assert!(passes(&ceiling), "more than the ceiling: {both:?}");
                prop_assert!(passes(&asked), "more than was asked: {both:?}");
            }
            let lesser = |mine: Option<u64>, other: Option<u64>| {
                other.is_none_or(|other| mine.is_some_and(|mine| mine <= other))
            };
            if both.has_way_out() {
                prop_assert!(lesser(both.caps.bytes, ceiling.caps.bytes));
                prop_assert!(lesser(both.caps.bytes, asked.caps.bytes));
            }
            // Once more below the same ceiling changes nothing, so a fork or an update is never refused for
            // what its sandbox has.
            prop_assert_eq!(ceiling.narrowed(&both), Ok(both));
        }

        #[test]
        fn no_request_leaves_that_either_of_the_two_keeps_in(
            ceiling in any_rules(), asked in any_rules(),
            host in prop::sample::select(HOSTS.to_vec()),
            port in prop::sample::select(vec![443_u16, 80, 22]),
            addresses in prop::collection::vec(address(), 1..3),
            is_tls in any::<bool>(),
            method in prop::sample::select(vec!["GET", "POST"]),
            path in prop::sample::select(vec!["/", "/a/b", "/a/c", "/a/../b"]),
            sent in prop::sample::select(vec!["", "X_A", "x-a x-b"]),
            has_body in any::<bool>(),
        ) {
            let Ok(both) = ceiling.narrowed(&asked) else { return Ok(()) };
            let host = Host::parse(host).unwrap();
            let addresses = match host {
                Host::Address(address) => vec![address],
                Host::Name(_) => addresses,
            };
            let fields: Vec<Field<'_>> =
                sent.split_whitespace().map(|name| (name, b"1".as_slice())).collect();
            let request = (Request { host: &host, port, method, path, fields: &fields }, has_body);
            if leaves(&both, is_tls, request, &addresses) {
                prop_assert!(leaves(&ceiling, is_tls, request, &addresses), "more than the ceiling: {both:?}");
                prop_assert!(leaves(&asked, is_tls, request, &addresses), "more than was asked: {both:?}");
            }
        }

        #[test]
        fn an_entry_covers_only_what_it_names(
            mine in entry(), other in entry(),
            host in prop::sample::select(HOSTS.to_vec()),
            port in prop::sample::select(vec![443_u16, 80, 22]),
        ) {
            let host = Host::parse(host).unwrap();
            if mine.covers(&other) && other.names(&host, port) {
                prop_assert!(mine.names(&host, port));
            }
        }
    }
}
