//! Whether rules could ever let something out: so that what can never be used is refused when it is asked for.

use super::{Entry, How, NetworkMode, NetworkRules, Order};

/// The least that may be asked of a host.
const READS: How<'static> = How::Request {
    method: "GET",
    has_body: false,
};

impl NetworkRules {
    /// Whether some request to these hosts could be let out, as far as can be said without knowing the addresses of
    /// names.
    pub fn could_let_out(&self, to: &Entry) -> bool {
        if self.mode == NetworkMode::None {
            return false;
        }
        if let (Some(host), Some(port)) = (to.one_host(), to.port()) {
            return self.before(READS, &host, port).is_allowed();
        }
        let is_allowed = self.is_any_allowed(to);
        let is_denied = self.deny.iter().any(|entry| entry.covers(to));
        match self.order {
            Order::DenyFirst if is_denied => false,
            Order::AllowFirst if is_allowed => true,
            Order::AllowFirst if is_denied => false,
            Order::DenyFirst | Order::AllowFirst => is_allowed || !self.is_closed(),
        }
    }

    fn is_any_allowed(&self, to: &Entry) -> bool {
        let presets = self.presets.iter().flat_map(|preset| preset.entries());
        let rules = self.requests.iter().flat_map(|rule| rule.entries());
        let counts = self.mode != NetworkMode::Unrestricted;
        self.allow.iter().any(|entry| entry.overlaps(to))
            || presets.into_iter().any(|entry| entry.overlaps(to))
            || (counts && rules.into_iter().any(|entry| entry.overlaps(to)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{NetworkAsked, RequestAsked};

    #[test]
    fn what_rules_never_let_out_is_known_beforehand() {
        let list = |mode, allow: &[&str], deny: &[&str]| {
            let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect();
            let asked = NetworkAsked {
                mode,
                allow: texts(allow),
                deny: texts(deny),
                ..NetworkAsked::default()
            };
            NetworkRules::read(&asked).unwrap()
        };
        let all = |deny: &[&str]| list(Some(NetworkMode::Unrestricted), &[], deny);
        let e2b = |allow: &[&str], deny: &[&str]| NetworkRules {
            order: Order::AllowFirst,
            allow: allow.iter().map(|one| one.parse().unwrap()).collect(),
            ..all(deny)
        };
        let rule = NetworkRules::read(&NetworkAsked {
            requests: vec![RequestAsked {
                host: "a.test".to_owned(),
                methods: vec!["GET".to_owned()],
                ..RequestAsked::default()
            }],
            ..NetworkAsked::default()
        })
        .unwrap();
        for (rules, to, expect) in [
            (NetworkRules::default(), "a.test:443", false),
            (all(&[]), "a.test:443", true),
            (all(&["a.test"]), "a.test:443", false),
            (all(&["*.b.test"]), "*.c.b.test:443", false),
            (all(&["*.c.b.test"]), "*.b.test:443", true),
            (all(&["10.0.0.0/8"]), "10.0.0.1:443", false),
            (list(None, &["a.test:80"], &[]), "a.test:443", false),
            (list(None, &["a.test"], &[]), "*.a.test:443", false),
            (list(None, &["x.a.test"], &[]), "*.a.test:443", true),
            (list(None, &["*.test"], &[]), "*.a.test:443", true),
            (list(None, &["*.x.a.test"], &[]), "*.a.test:443", true),
            (list(None, &["*"], &["*.a.test"]), "*.a.test:443", false),
            (e2b(&["x.a.test"], &["*"]), "*.a.test:443", true),
            (e2b(&["b.test"], &["*"]), "*.a.test:443", false),
            (e2b(&["b.test"], &["*"]), "a.test:443", false),
            (rule.clone(), "a.test:443", true),
            (rule.clone(), "a.test:8443", false),
            (rule, "*.test:443", true),
        ] {
            let entry = to.parse().unwrap();
            assert_eq!(rules.could_let_out(&entry), expect, "{to} {rules:?}");
        }
    }
}
