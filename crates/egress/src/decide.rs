//! The decision: from what was asked, the rules and the addresses that a name has, to what is dialled.

use crate::address::{Class, canonical, classify};
use crate::exception::Exception;
use crate::host::Host;
use crate::reason::Reason;
use std::net::{IpAddr, SocketAddr};

/// What a sandbox may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    None,
    /// Every public address, and what the operator opened.
    Unrestricted,
}

/// What holds for all sandboxes of a node.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'g> {
    /// What the operator opened.
    pub exceptions: &'g [Exception],
    /// The addresses of this machine.
    pub own: &'g [IpAddr],
}

/// What is done about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Dial these, in this order, and nothing else.
    Allow {
        /// Never empty; each was checked.
        dial: Vec<SocketAddr>,
    },
    /// Do not.
    Deny(Reason),
}

/// Whether a host may be asked for at all, before its name is resolved: a name that is refused anyway tells
/// nobody's resolver anything.
///
/// # Errors
/// Why not.
pub fn precheck(mode: Mode, _host: &Host) -> Result<(), Reason> {
    match mode {
        Mode::None => Err(Reason::NoEgress),
        Mode::Unrestricted => Ok(()),
    }
}

/// Decides about a connection to `host`, which has these addresses. A name with one closed address is denied as a
/// whole: an honest name has none, and which of them were dialled would be the name's choice.
pub fn decide(
    mode: Mode,
    ground: Ground<'_>,
    host: &Host,
    port: u16,
    addresses: &[IpAddr],
) -> Decision {
    if let Err(reason) = precheck(mode, host) {
        return Decision::Deny(reason);
    }
    if port == 0 {
        return Decision::Deny(Reason::BadTarget);
    }
    let mut dial = Vec::with_capacity(addresses.len());
    for address in addresses {
        let address = canonical(*address);
        if let Err(reason) = check(ground, address, port) {
            return Decision::Deny(reason);
        }
        dial.push(SocketAddr::new(address, port));
    }
    if dial.is_empty() {
        return Decision::Deny(Reason::UnknownName);
    }
    Decision::Allow { dial }
}

fn check(ground: Ground<'_>, address: IpAddr, port: u16) -> Result<(), Reason> {
    let mut exceptions = ground.exceptions.iter();
    if exceptions.any(|exception| exception.opens(address, port)) {
        return Ok(());
    }
    let class = classify(address);
    if class != Class::Global {
        return Err(Reason::Closed(class));
    }
    if ground.own.contains(&address) {
        return Err(Reason::OwnAddress);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const OWN: &[IpAddr] = &[IpAddr::V4(Ipv4Addr::new(9, 9, 9, 1))];

    fn ask(exceptions: &[&str], mode: Mode, port: u16, addresses: &[&str]) -> String {
        let exceptions: Vec<Exception> =
            exceptions.iter().map(|one| one.parse().unwrap()).collect();
        let addresses: Vec<IpAddr> = addresses.iter().map(|one| one.parse().unwrap()).collect();
        let ground = Ground {
            exceptions: &exceptions,
            own: OWN,
        };
        let host = Host::Name("x.example".to_owned());
        match decide(mode, ground, &host, port, &addresses) {
            Decision::Allow { dial } => {
                let dial: Vec<String> = dial.iter().map(ToString::to_string).collect();
                dial.join(" ")
            }
            Decision::Deny(reason) => reason.code().to_owned(),
        }
    }

    #[test]
    fn public_addresses_are_dialled_and_one_closed_address_closes_the_name() {
        let open = Mode::Unrestricted;
        for (exceptions, mode, port, addresses, expect) in [
            (&[][..], open, 443, &["9.9.9.9"][..], "9.9.9.9:443"),
            (&[], Mode::None, 443, &["9.9.9.9"], "no_egress"),
            (&["127.0.0.1"], Mode::None, 443, &["127.0.0.1"], "no_egress"),
            (&[], open, 0, &["9.9.9.9"], "bad_target"),
            (&[], open, 443, &[], "unknown_name"),
            (
                &[],
                open,
                443,
                &["9.9.9.9", "127.0.0.1"],
                "address_loopback",
            ),
            (&[], open, 443, &["10.0.0.1", "9.9.9.9"], "address_private"),
            (&[], open, 443, &["9.9.9.1"], "address_node"),
            (&[], open, 443, &["::ffff:9.9.9.1"], "address_node"),
            (&["9.9.9.1:443"], open, 443, &["9.9.9.1"], "9.9.9.1:443"),
            (&["127.0.0.1:80"], open, 80, &["127.0.0.1"], "127.0.0.1:80"),
            (
                &["127.0.0.1:80"],
                open,
                80,
                &["::ffff:127.0.0.1"],
                "127.0.0.1:80",
            ),
            (
                &["127.0.0.1:80"],
                open,
                81,
                &["127.0.0.1"],
                "address_loopback",
            ),
            (&[], open, 80, &["169.254.169.254"], "address_metadata"),
            (
                &[],
                open,
                80,
                &["2606:4700::1111", "9.9.9.9"],
                "[2606:4700::1111]:80 9.9.9.9:80",
            ),
        ] {
            assert_eq!(
                ask(exceptions, mode, port, addresses),
                expect,
                "{addresses:?} {port}"
            );
        }
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
            if let Decision::Allow { dial } = decide(Mode::Unrestricted, ground, &host, port, &addresses) {
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
