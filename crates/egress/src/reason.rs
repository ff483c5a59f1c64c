//! Why something was not let out or did not come back: stable codes, each with its status and its hint.

use crate::address::Class;
use crate::host::BadHost;

/// Why a request ended here. The codes are what programs read in `x-proxy-error`, and what records hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The sandbox has no way out.
    NoEgress,
    /// The address is not of the outside.
    Closed(Class),
    /// The address is one of this machine's own.
    OwnAddress,
    /// The target cannot be read.
    BadTarget,
    /// The host cannot be read.
    BadHost(BadHost),
    /// The `Host` field names somebody else, there are two, or there is none.
    HostMismatch,
    /// The body has a coding that is not passed on.
    BadCoding,
    /// Absolute form with a scheme that is not `http`.
    BadScheme,
    /// A command of SOCKS that is not CONNECT.
    BadCommand,
    /// Too many connections of this sandbox or of all.
    TooMany,
    /// The name is more likely data than a name.
    NameCarriesData,
    /// The sandbox asks for too many names in a minute.
    TooManyNames,
    /// Nobody knows the name.
    UnknownName,
    /// Whoever knows the name does not answer.
    ResolveTimeout,
    /// Nobody listens there, or the network leads nowhere.
    Unreachable,
    /// Nobody answered.
    ConnectTimeout,
    /// What was answered cannot be passed on.
    BadAnswer,
    /// No answer came in time.
    AnswerTimeout,
    /// Something that is ours to mend.
    Internal,
}

impl Reason {
    /// The code; never changes its meaning.
    pub fn code(self) -> &'static str {
        match self {
            Reason::NoEgress => "no_egress",
            Reason::Closed(class) => class_code(class),
            Reason::OwnAddress => "address_node",
            Reason::BadTarget => "bad_target",
            Reason::BadHost(BadHost::Malformed) => "bad_host",
            Reason::BadHost(BadHost::NotAscii) => "host_not_ascii",
            Reason::BadHost(BadHost::OddAddress) => "odd_address",
            Reason::HostMismatch => "host_mismatch",
            Reason::BadCoding => "bad_coding",
            Reason::BadScheme => "bad_scheme",
            Reason::BadCommand => "bad_command",
            Reason::TooMany => "too_many",
            Reason::NameCarriesData => "name_carries_data",
            Reason::TooManyNames => "too_many_names",
            Reason::UnknownName => "unknown_name",
            Reason::ResolveTimeout => "resolve_timeout",
            Reason::Unreachable => "unreachable",
            Reason::ConnectTimeout => "connect_timeout",
            Reason::BadAnswer => "bad_answer",
            Reason::AnswerTimeout => "answer_timeout",
            Reason::Internal => "internal",
        }
    }

    /// The status that answers it, RFC 9110 section 15.
    pub fn status(self) -> u16 {
        match self {
            Reason::NoEgress | Reason::Closed(_) | Reason::OwnAddress | Reason::NameCarriesData => {
                403
            }
            Reason::BadTarget
            | Reason::BadHost(_)
            | Reason::HostMismatch
            | Reason::BadCoding
            | Reason::BadScheme
            | Reason::BadCommand => 400,
            Reason::TooMany | Reason::TooManyNames => 503,
            Reason::UnknownName | Reason::Unreachable | Reason::BadAnswer => 502,
            Reason::ResolveTimeout | Reason::ConnectTimeout | Reason::AnswerTimeout => 504,
            Reason::Internal => 500,
        }
    }

    /// Whether a rule said no, and not the network or the request.
    pub fn is_denial(self) -> bool {
        self.status() == 403
    }

    /// What to do about it.
    pub fn hint(self) -> &'static str {
        match self {
            Reason::NoEgress => "make the sandbox with a way out: `allow_internet`",
            Reason::Closed(_) | Reason::OwnAddress => {
                "sandboxes reach public addresses only; whoever runs the server may open others with \
                 `cofferdam up --egress-allow ADDRESS[:PORT]`"
            }
            Reason::BadTarget => "ask for `http://HOST[:PORT]/PATH`, or CONNECT to HOST:PORT",
            Reason::BadHost(BadHost::Malformed) => "write the host as it is in DNS",
            Reason::BadHost(BadHost::NotAscii) => "write the name in its `xn--` form",
            Reason::BadHost(BadHost::OddAddress) => "write an IPv4 address as four decimal numbers",
            Reason::HostMismatch => "send one Host field, the same as the target",
            Reason::BadCoding => "send the body with `Transfer-Encoding: chunked` or a length",
            Reason::BadScheme => "for https, CONNECT to HOST:443",
            Reason::BadCommand => "of SOCKS, CONNECT is served",
            Reason::TooMany => "close some connections and try again",
            Reason::NameCarriesData => {
                "use a name with fewer long labels that look random; DNS is no way to send data"
            }
            Reason::TooManyNames => "ask for fewer new names in a minute",
            Reason::UnknownName => "look at how the name is written",
            Reason::ResolveTimeout
            | Reason::Unreachable
            | Reason::ConnectTimeout
            | Reason::AnswerTimeout => "the other side may be down; try again later",
            Reason::BadAnswer => "the other side answered with something that is not HTTP/1.1",
            Reason::Internal => "the server's log says more",
        }
    }
}

fn class_code(class: Class) -> &'static str {
    match class {
        Class::Global => "address",
        Class::Loopback => "address_loopback",
        Class::Private => "address_private",
        Class::LinkLocal => "address_link_local",
        Class::Metadata => "address_metadata",
        Class::Shared => "address_shared",
        Class::Multicast => "address_multicast",
        Class::Broadcast => "address_broadcast",
        Class::Unspecified => "address_unspecified",
        Class::Documentation => "address_documentation",
        Class::Translated => "address_translated",
        Class::Reserved => "address_reserved",
    }
}
