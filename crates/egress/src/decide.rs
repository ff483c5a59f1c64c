//! The decision: from what was asked, the rules and the addresses that a name has, to what is dialled.

use crate::exception::Exception;
use crate::reason::Reason;
use model::address::{Class, canonical, classify};
use model::host::Host;
use model::network::{How, NetworkRules, Verdict};
use std::net::{IpAddr, SocketAddr};

/// What holds for all sandboxes of a node.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'g> {
    /// What the operator opened.
    pub exceptions: &'g [Exception],
    /// The addresses of this machine.
    pub own: &'g [IpAddr],
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// In which way.
    pub how: How<'a>,
    /// Whom.
    pub host: &'a Host,
    /// At which port.
    pub port: u16,
}

/// What is done about a request, and by which rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Dial these, in this order, and nothing else.
    Allow {
        /// Never empty; each was checked.
        dial: Vec<SocketAddr>,
        /// Who says so.
        rule: String,
    },
    /// Do not.
    Deny(Refusal),
}

/// A no, and who says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// The rule, where there is one.
    pub rule: Option<String>,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Refusal {
        Refusal { reason, rule: None }
    }
}

impl Refusal {
    /// That of rules; `None` when they let pass.
    pub fn of(verdict: &Verdict) -> Option<Refusal> {
        Some(Refusal {
            reason: Reason::Rules(verdict.denial?),
            rule: Some(verdict.rule.to_string()),
        })
    }

    /// That of rules that do not let pass.
    pub(crate) fn by(verdict: &Verdict) -> Refusal {
        Refusal::of(verdict).unwrap_or_else(|| Reason::Internal.into())
    }
}

/// Whether a host may be asked for at all, before its name is resolved: a name that is refused anyway tells
/// nobody's resolver anything.
///
/// # Errors
/// Why not.
pub fn precheck(rules: &NetworkRules, ask: Ask<'_>) -> Result<(), Refusal> {
    if ask.port == 0 {
        return Err(Reason::BadTarget.into());
    }
    Refusal::of(&rules.before(ask.how, ask.host, ask.port)).map_or(Ok(()), Err)
}

/// Decides about a connection to a host that has these addresses. A name with one closed address is denied as a
/// whole: an honest name has none, and which of them were dialled would be the name's choice.
pub fn decide(
    rules: &NetworkRules,
    ground: Ground<'_>,
    ask: Ask<'_>,
    addresses: &[IpAddr],
) -> Decision {
    if let Err(refusal) = precheck(rules, ask) {
        return Decision::Deny(refusal);
    }
    let verdict = rules.after(ask.how, ask.host, ask.port, addresses);
    if let Some(refusal) = Refusal::of(&verdict) {
        return Decision::Deny(refusal);
    }
    let mut rule = verdict.rule.to_string();
    let mut dial = Vec::with_capacity(addresses.len());
    for address in addresses {
        let address = canonical(*address);
        match check(ground, address, ask.port) {
            Ok(None) => {}
            Ok(Some(exception)) => rule = format!("{}, operator {exception}", verdict.rule),
            Err(reason) => {
                let rule = Some("closed in every mode".to_owned());
                return Decision::Deny(Refusal { reason, rule });
            }
        }
        dial.push(SocketAddr::new(address, ask.port));
    }
    if dial.is_empty() {
        return Decision::Deny(Reason::UnknownName.into());
    }
    Decision::Allow { dial, rule }
}

/// Those of these addresses that could be dialled at some port, in their one form. A name that has one that could not
/// is denied as a whole when somebody connects.
pub fn could_dial(ground: Ground<'_>, addresses: &[IpAddr]) -> Vec<IpAddr> {
    let one_form = addresses.iter().map(|address| canonical(*address));
    let could = |address: &IpAddr| {
        let mut exceptions = ground.exceptions.iter();
        exceptions.any(|one| one.opens_at_some_port(*address))
            || (classify(*address) == Class::Global && !ground.own.contains(address))
    };
    one_form.filter(could).collect()
}

/// Whether a proxy that connections leave through may be dialled itself: its name is whoever made the sandbox's to say,
/// and its addresses are closed as all are. One closed address closes it.
pub(crate) fn check_upstream(
    ground: Ground<'_>,
    port: u16,
    addresses: &[IpAddr],
) -> Result<Vec<SocketAddr>, Reason> {
    let mut dial = Vec::with_capacity(addresses.len());
    for address in addresses.iter().copied().map(canonical) {
        check(ground, address, port)?;
        dial.push(SocketAddr::new(address, port));
    }
    if dial.is_empty() {
        Err(Reason::UnknownName)
    } else {
        Ok(dial)
    }
}

/// What the operator opened counts before what is closed, and is named.
fn check<'g>(
    ground: Ground<'g>,
    address: IpAddr,
    port: u16,
) -> Result<Option<&'g Exception>, Reason> {
    let mut exceptions = ground.exceptions.iter();
    if let Some(open) = exceptions.find(|exception| exception.opens(address, port)) {
        return Ok(Some(open));
    }
    let class = classify(address);
    if class != Class::Global {
        return Err(Reason::Closed(class));
    }
    if ground.own.contains(&address) {
        return Err(Reason::OwnAddress);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const OWN: &[IpAddr] = &[IpAddr::V4(Ipv4Addr::new(9, 9, 9, 1))];

    fn ask(exceptions: &[&str], open: bool, port: u16, addresses: &[&str]) -> String {
        let exceptions: Vec<Exception> =
            exceptions.iter().map(|one| one.parse().unwrap()).collect();
        let addresses: Vec<IpAddr> = addresses.iter().map(|one| one.parse().unwrap()).collect();
        let ground = Ground {
            exceptions: &exceptions,
            own: OWN,
        };
        let host = Host::Name("x.example".to_owned());
        let rules = NetworkRules::all_or_nothing(open);
        let ask = Ask {
            how: How::Tunnel,
            host: &host,
            port,
        };
        match decide(&rules, ground, ask, &addresses) {
            Decision::Allow { dial, .. } => {
                let dial: Vec<String> = dial.iter().map(ToString::to_string).collect();
                dial.join(" ")
            }
            Decision::Deny(refusal) => refusal.reason.code().to_owned(),
        }
    }

    #[test]
    fn public_addresses_are_dialled_and_one_closed_address_closes_the_name() {
        for (exceptions, open, port, addresses, expect) in [
            (&[][..], true, 443, &["9.9.9.9"][..], "9.9.9.9:443"),
            (&[], false, 443, &["9.9.9.9"], "no_egress"),
            (&["127.0.0.1"], false, 443, &["127.0.0.1"], "no_egress"),
            (&[], true, 0, &["9.9.9.9"], "bad_target"),
            (&[], true, 443, &[], "unknown_name"),
            (
                &[],
                true,
                443,
                &["9.9.9.9", "127.0.0.1"],
                "address_loopback",
            ),
            (&[], true, 443, &["10.0.0.1", "9.9.9.9"], "address_private"),
            (&[], true, 443, &["9.9.9.1"], "address_node"),
            (&[], true, 443, &["::ffff:9.9.9.1"], "address_node"),
            (&["9.9.9.1:443"], true, 443, &["9.9.9.1"], "9.9.9.1:443"),
            (&["127.0.0.1:80"], true, 80, &["127.0.0.1"], "127.0.0.1:80"),
            (
                &["127.0.0.1:80"],
                true,
                80,
                &["::ffff:127.0.0.1"],
                "127.0.0.1:80",
            ),
            (
                &["127.0.0.1:80"],
                true,
                81,
                &["127.0.0.1"],
                "address_loopback",
            ),
            (&[], true, 80, &["169.254.169.254"], "address_metadata"),
            (
                &[],
                true,
                80,
                &["2606:4700::1111", "9.9.9.9"],
                "[2606:4700::1111]:80 9.9.9.9:80",
            ),
        ] {
            assert_eq!(
                ask(exceptions, open, port, addresses),
                expect,
                "{addresses:?} {port}"
            );
        }
    }

    #[test]
    fn a_rule_opens_no_address_that_is_closed_and_an_operator_opens_none_that_a_rule_denies() {
        let exceptions: Vec<Exception> = vec!["127.0.0.1".parse().unwrap()];
        let ground = Ground {
            exceptions: &exceptions,
            own: OWN,
        };
        let judge = |allow: &str, deny: &str, host: &str| {
            let entry = |text: &str| {
                text.split_whitespace()
                    .map(|one| one.parse().unwrap())
                    .collect()
            };
            let rules = NetworkRules {
                mode: model::network::NetworkMode::Allowlist,
                allow: entry(allow),
                deny: entry(deny),
                ..NetworkRules::default()
            };
            let host = Host::parse(host).unwrap();
            let address = match host {
                Host::Address(address) => address,
                Host::Name(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            };
            let ask = Ask {
                how: How::Tunnel,
                host: &host,
                port: 80,
            };
            match decide(&rules, ground, ask, &[address]) {
                Decision::Allow { rule, .. } => rule,
                Decision::Deny(refusal) => refusal.reason.code().to_owned(),
            }
        };
        assert_eq!(
            judge("10.0.0.0/8 192.168.0.1", "", "10.0.0.1"),
            "address_private"
        );
        assert_eq!(judge("*", "", "169.254.169.254"), "address_metadata");
        assert_eq!(judge("*", "", "9.9.9.1"), "address_node");
        assert_eq!(
            judge("a.example", "", "a.example"),
            "allow a.example, operator 127.0.0.1"
        );
        assert_eq!(
            judge("a.example", "127.0.0.0/8", "a.example"),
            "host_denied"
        );
        assert_eq!(judge("b.example", "", "a.example"), "host_not_allowed");
    }

    fn any_address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
            any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
            any::<u32>().prop_map(|bits| IpAddr::V6(Ipv4Addr::from_bits(bits).to_ipv6_mapped())),
            any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(0x7f00_0000 | bits >> 8))),
            any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | bits >> 8))),
        ]
    }

    proptest! {
        #[test]
        fn nothing_is_ever_dialled_that_is_not_public(
            addresses in proptest::collection::vec(any_address(), 0..6),
            port: u16,
        ) {
            let ground = Ground { exceptions: &[], own: OWN };
            let host = Host::Name("x.example".to_owned());
            let ask = Ask { how: How::Tunnel, host: &host, port };
            let rules = NetworkRules::all_or_nothing(true);
            if let Decision::Allow { dial, .. } = decide(&rules, ground, ask, &addresses) {
                prop_assert!(!dial.is_empty());
                for to in dial {
                    prop_assert_eq!(classify(to.ip()), Class::Global);
                    prop_assert_eq!(to.ip(), canonical(to.ip()));
                    prop_assert!(to.port() == port && port != 0 && !OWN.contains(&to.ip()));
                }
            }
        }
    }
}
