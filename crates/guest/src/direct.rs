//! What a guest asks on a line of its own, for programs that know no proxy. `egress::direct` reads it and says what
//! it means; whoever joins the two sees to it that the numbers are the same.

/// Connect to the host at the port.
pub const CONNECT: u8 = 1;
/// Say whether there is such a name, and whether a rule is against it.
pub const RESOLVE: u8 = 2;

/// As [`RESOLVE`], and whether it has an address of IPv6 that could be dialled.
pub const NAME: u8 = 3;
/// A datagram to the host at the port was refused, which is to be recorded.
pub const DATAGRAM: u8 = 4;
/// The same of a ping or of another protocol; the port is 0.
pub const OTHER: u8 = 5;

/// It is so, or the connection stands.
pub const YES: u8 = 0;
/// A rule says no.
pub const DENIED: u8 = 1;
/// Nobody knows the name.
pub const UNKNOWN: u8 = 2;
/// It came to nothing.
pub const FAILED: u8 = 3;
/// To [`NAME`]: it is so, and it has such an address.
pub const BOTH: u8 = 4;

/// How long a program may keep the answer about a name, in seconds. The address stays the name's own; this is how soon
/// a name that is gone, or not allowed any more, is asked for again.
pub const TTL_S: u32 = 60;

/// A question; `None` for a host that is longer than any.
pub fn question(kind: u8, port: u16, host: &str) -> Option<Vec<u8>> {
    let length = u8::try_from(host.len()).ok()?;
    let [high, low] = port.to_be_bytes();
    Some([&[kind, high, low, length], host.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_says_which_at_what_port_and_for_whom() {
        let asked = question(CONNECT, 443, "a.example").unwrap();
        assert_eq!(asked, b"\x01\x01\xbb\x09a.example");
        assert_eq!(question(RESOLVE, 0, &"a".repeat(256)), None);
    }
}
