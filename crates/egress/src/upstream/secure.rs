//! TLS with the proxy that connections leave through. Whoever cannot show that he is that proxy learns nothing: neither
//! the password nor what is asked for.

use crate::inspect::{HANDSHAKE_PATIENCE, Roots, provider, server_name};
use crate::outside::Outside;
use crate::proxy::Way;
use crate::reason::Reason;
use model::network::Upstream;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How a proxy is spoken to in TLS.
pub(crate) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

/// For a proxy that is spoken to so.
///
/// # Errors
/// [`Reason::Upstream`] where nobody can be believed to be it.
pub(crate) fn of(way: &Way, upstream: &Upstream) -> Result<Option<Tls>, Reason> {
    let Some(name) = upstream.tls_name() else {
        return Ok(None);
    };
    let roots = match &way.rules().upstream_ca {
        Some(pem) => Roots::of_pem(pem),
        None => {
            let inspector = way.inspector().ok_or(Reason::Upstream)?;
            inspector.roots().clone()
        }
    };
    if roots.count() == 0 {
        return Err(Reason::Upstream);
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|_| Reason::Internal)?
        .with_root_certificates(roots.store())
        .with_no_client_auth();
    Ok(Some(Tls {
        connector: TlsConnector::from(Arc::new(config)),
        name: server_name(&name).ok_or(Reason::Upstream)?,
    }))
}

impl Tls {
    /// Over a connection to it.
    pub(crate) async fn over(&self, socket: TcpStream) -> Result<Outside, Reason> {
        let shaking = self.connector.connect(self.name.clone(), socket);
        let stream = tokio::time::timeout(HANDSHAKE_PATIENCE, shaking).await;
        let stream = stream.map_err(|_| Reason::Upstream)?;
        stream
            .map(|stream| Outside::Secured(Box::new(stream)))
            .map_err(|_| Reason::Upstream)
    }
}
