//! Where this server is found from outside, so that somebody who asks over another door can be told.

use model::id::SandboxId;

use crate::Door;
use crate::e2b::domain::Domain;

/// The TCP door as clients find it.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    scheme: &'static str,
    domain: Option<Domain>,
    port: u16,
}

impl Site {
    /// Of the first door that is on TCP, if there is one.
    pub(crate) fn of(doors: &[Door]) -> Option<Self> {
        doors.iter().find_map(|door| match door {
            Door::Tcp {
                listener,
                domain,
                tls,
                ..
            } => Some(Self {
                scheme: if tls.is_some() { "https" } else { "http" },
                domain: domain.clone(),
                port: listener.local_addr().ok()?.port(),
            }),
            Door::Unix(_) | Door::Nodes(_) | Door::Memory { .. } => None,
        })
    }

    /// How it is spoken to.
    pub(crate) fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// What stands behind the names of sandboxes, with the port.
    fn domain(&self) -> String {
        match &self.domain {
            Some(domain) => domain.answer(Some(self.port)),
            None => format!("localhost:{}", self.port),
        }
    }

    /// A port of a sandbox, by a name of its own.
    pub(crate) fn named(&self, id: &SandboxId, port: u16) -> String {
        let (scheme, domain) = (self.scheme, self.domain());
        format!("{scheme}://{port}-{}.{domain}", id.short())
    }

    /// What stands before a port in the address of a sandbox by path.
    pub(crate) fn path(&self, id: &SandboxId) -> String {
        let (scheme, port) = (self.scheme, self.port);
        let server = match &self.domain {
            Some(_) => format!("{scheme}://{}", self.domain()),
            None => format!("{scheme}://127.0.0.1:{port}"),
        };
        server + &api::routes::fill(api::routes::SANDBOX_PORT, &[id.as_str(), ""])
    }

    /// Where headers say which port of which sandbox is meant.
    pub(crate) fn shared(&self) -> String {
        let scheme = self.scheme;
        match &self.domain {
            Some(_) => format!("{scheme}://sandbox.{}", self.domain()),
            None => format!("{scheme}://127.0.0.1:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_has_a_name_and_all_have_one_address() {
        let id = SandboxId::from_parts(1, [1; 10]);
        let check = |scheme, domain: Option<&str>, named: &str, shared: &str| {
            let domain = domain.map(|domain| domain.parse().unwrap());
            let site = Site {
                scheme,
                domain,
                port: 7300,
            };
            let named = format!("{scheme}://3000-{}.{named}", id.short());
            let path = format!("/v1/sandboxes/{id}/ports/");
            assert!(site.path(&id).ends_with(&path) && site.path(&id).starts_with(scheme));
            assert_eq!(
                (site.named(&id, 3000), site.shared()),
                (named, shared.to_owned())
            );
        };
        check("http", None, "localhost:7300", "http://127.0.0.1:7300");
        let shared = "https://sandbox.sbx.example:7300";
        check("https", Some("sbx.example"), "sbx.example:7300", shared);
        let shared = "https://sandbox.sbx.example";
        check("https", Some("sbx.example:443"), "sbx.example", shared);
    }
}
