//! Why something was not let out or did not come back: stable codes, each with its status and its hint.

use model::address::Class;
use model::host::BadHost;
use model::network::Denial;

/// Why a request ended here. The codes are what programs read in `x-proxy-error`, and what records hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The rules of the sandbox say no.
    Rules(Denial),
    /// More requests in a minute than the rules allow.
    TooFast,
    /// More bytes than the rules allow.
    TooMuch,
    /// What begins like TLS cannot be read.
    BadGreeting,
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
    /// The client did not speak TLS to its end, maybe because it does not trust the sandbox's authority.
    ClientTls,
    /// What was asked in a tunnel that is looked into is no request.
    BadRequest,
    /// The request would carry a secret without TLS.
    ClearSecret,
    /// The body has a coding that is not passed on.
    BadCoding,
    /// Absolute form with a scheme that is not `http`.
    BadScheme,
    /// A command of SOCKS that is not CONNECT.
    BadCommand,
    /// Neither TCP nor a question of DNS.
    NotCarried,
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
    /// Whoever answered does not show that it is the host.
    OutsideTls,
    /// The proxy that everything leaves through does not do its part.
    Upstream,
    /// What was answered cannot be passed on.
    BadAnswer,
    /// No answer came in time.
    AnswerTimeout,
    /// The index of packages has no such page or file.
    NotInIndex,
    /// Where the index gets its packages has answered with what cannot be served.
    IndexFailed,
    /// A file is another one than the index says.
    WrongDigest,
    /// Something that is ours to mend.
    Internal,
}

impl Reason {
    /// The code; never changes its meaning.
    pub fn code(self) -> &'static str {
        match self {
            Reason::Rules(denial) => denial.code(),
            Reason::TooFast => "too_fast",
            Reason::TooMuch => "byte_limit",
            Reason::BadGreeting => "bad_greeting",
            Reason::Closed(class) => class.code(),
            Reason::OwnAddress => "address_node",
            Reason::BadTarget => "bad_target",
            Reason::BadHost(BadHost::Malformed) => "bad_host",
            Reason::BadHost(BadHost::NotAscii) => "host_not_ascii",
            Reason::BadHost(BadHost::OddAddress) => "odd_address",
            Reason::HostMismatch => "host_mismatch",
            Reason::ClientTls => "client_tls",
            Reason::BadRequest => "bad_request",
            Reason::ClearSecret => model::network::CLEAR_SECRET,
            Reason::OutsideTls => "outside_tls",
            Reason::BadCoding => "bad_coding",
            Reason::BadScheme => "bad_scheme",
            Reason::BadCommand => "bad_command",
            Reason::NotCarried => "not_carried",
            Reason::TooMany => "too_many",
            Reason::NameCarriesData => "name_carries_data",
            Reason::TooManyNames => "too_many_names",
            Reason::UnknownName => "unknown_name",
            Reason::ResolveTimeout => "resolve_timeout",
            Reason::Unreachable => "unreachable",
            Reason::ConnectTimeout => "connect_timeout",
            Reason::Upstream => "upstream_failed",
            Reason::BadAnswer => "bad_answer",
            Reason::AnswerTimeout => "answer_timeout",
            Reason::NotInIndex => "not_in_index",
            Reason::IndexFailed => "index_failed",
            Reason::WrongDigest => "wrong_digest",
            Reason::Internal => "internal",
        }
    }

    /// The status that answers it, RFC 9110 section 15.
    pub fn status(self) -> u16 {
        match self {
            Reason::Rules(Denial::OddPath) => 400,
            Reason::Rules(_)
            | Reason::Closed(_)
            | Reason::OwnAddress
            | Reason::TooMuch
            | Reason::ClearSecret
            | Reason::NameCarriesData
            | Reason::NotCarried
            | Reason::BadGreeting => 403,
            // RFC 6585 section 4.
            Reason::TooFast => 429,
            Reason::BadTarget
            | Reason::BadHost(_)
            | Reason::HostMismatch
            | Reason::ClientTls
            | Reason::BadRequest
            | Reason::BadCoding
            | Reason::BadScheme
            | Reason::BadCommand => 400,
            Reason::NotInIndex => 404,
            Reason::TooMany | Reason::TooManyNames => 503,
            Reason::UnknownName
            | Reason::Unreachable
            | Reason::OutsideTls
            | Reason::Upstream
            | Reason::BadAnswer
            | Reason::IndexFailed
            | Reason::WrongDigest => 502,
            Reason::ResolveTimeout | Reason::ConnectTimeout | Reason::AnswerTimeout => 504,
            Reason::Internal => 500,
        }
    }

    /// Whether a rule said no, and not the network or the request.
    pub fn is_denial(self) -> bool {
        matches!(self.status(), 403 | 429)
    }

    /// What to do about it.
    pub fn hint(self) -> &'static str {
        match self {
            Reason::Rules(denial) => denial.hint(),
            Reason::TooFast => "wait a minute; the rules allow so many requests in one",
            Reason::TooMuch => "the rules allow no more bytes; ask whoever made the sandbox",
            Reason::BadGreeting => "a tunnel that begins like TLS must be TLS",
            Reason::Closed(_) | Reason::OwnAddress => {
                "sandboxes reach public addresses only; whoever runs the server may open others with \
                 `cofferdam up --egress-allow ADDRESS[:PORT]`"
            }
            Reason::BadTarget => "ask for `http://HOST[:PORT]/PATH`, or CONNECT to HOST:PORT",
            Reason::BadHost(BadHost::Malformed) => "write the host as it is in DNS",
            Reason::BadHost(BadHost::NotAscii) => "write the name in its `xn--` form",
            Reason::BadHost(BadHost::OddAddress) => "write an IPv4 address as four decimal numbers",
            Reason::HostMismatch => "send one Host field, the same as the target",
            Reason::ClientTls => {
                "trust the certificates in SSL_CERT_FILE; this host's requests are looked into"
            }
            Reason::BadRequest => "requests to this host are looked into; send HTTP/1.1",
            Reason::ClearSecret => "use https: a secret is added only to what leaves through TLS",
            Reason::OutsideTls => {
                "the host's certificate is not one that the node trusts; whoever runs the server may \
                 name others with `cofferdam up --egress-trust FILE`"
            }
            Reason::BadCoding => "send the body with `Transfer-Encoding: chunked` or a length",
            Reason::BadScheme => "for https, CONNECT to HOST:443",
            Reason::BadCommand => "of SOCKS, CONNECT is served",
            Reason::NotCarried => "use TCP: of everything else only questions of DNS are carried",
            Reason::TooMany => "close some connections and try again",
            Reason::NameCarriesData => {
                "use a shorter name, with fewer long labels that look random; DNS is no way to send data"
            }
            Reason::TooManyNames => "ask for fewer new names in a minute",
            Reason::UnknownName => "look at how the name is written",
            Reason::ResolveTimeout
            | Reason::Unreachable
            | Reason::ConnectTimeout
            | Reason::AnswerTimeout => "the other side may be down; try again later",
            Reason::Upstream => {
                "the proxy that connections leave through cannot be reached, or refuses; ask whoever made \
                 the sandbox"
            }
            Reason::BadAnswer => "the other side answered with something that is not HTTP/1.1",
            Reason::NotInIndex => {
                "the index has the listed versions of the listed packages, as far as its source has them with a \
                 digest: wheels and source archives, or tarballs"
            }
            Reason::IndexFailed => {
                "where the index gets its packages has answered with what cannot be served; try again later, or \
                 ask whoever runs the node"
            }
            Reason::WrongDigest => {
                "the file is another one than the index says; it is not to be trusted, wherever it came from"
            }
            Reason::Internal => "the server's log says more",
        }
    }
}
