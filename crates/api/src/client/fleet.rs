//! Nodes of a fleet.

use http::Method;

use super::attach::AttachIo;
use super::{Client, ClientError};
use crate::fleet::{
    EnrollTokenCreate, EnrollTokenList, EnrollTokenMade, EnrollTokenView, NodeChange, NodeEnroll,
    NodeEnrolled, NodeList, NodeOrder, NodeRenew, NodeView, ServerList,
};
use crate::link::{self, LinkClass};
use crate::routes;

impl Client {
    /// Makes a token with which one node can be enrolled.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn enroll_token_create(
        &self,
        new: &EnrollTokenCreate,
    ) -> Result<EnrollTokenMade, ClientError> {
        self.post(routes::ENROLL_TOKENS.to_owned(), new).await
    }

    /// The newest enrollment tokens.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn enroll_token_list(&self) -> Result<EnrollTokenList, ClientError> {
        self.get(routes::ENROLL_TOKENS.to_owned()).await
    }

    /// Takes an enrollment token back.
    ///
    /// # Errors
    /// [`ClientError`]; `conflict` when it was used.
    pub async fn enroll_token_revoke(&self, id: &str) -> Result<EnrollTokenView, ClientError> {
        let path = routes::fill(routes::ENROLL_TOKEN, &[id]);
        self.json(self.call(Method::DELETE, path)).await
    }

    /// Becomes a node.
    ///
    /// # Errors
    /// [`ClientError`]; `enroll_token_unknown` and its like.
    pub async fn node_enroll(&self, asked: &NodeEnroll) -> Result<NodeEnrolled, ClientError> {
        self.post(routes::NODE_ENROLL.to_owned(), asked).await
    }

    /// Gets a new certificate.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn node_renew(&self, asked: &NodeRenew) -> Result<NodeEnrolled, ClientError> {
        self.post(routes::NODE_RENEW.to_owned(), asked).await
    }

    /// Opens a link, on which the server opens streams from then on.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn node_link(&self, class: LinkClass) -> Result<AttachIo, ClientError> {
        let query = routes::query(&[("class", Some(class.as_str().to_owned()))]);
        let path = routes::NODE_LINK.to_owned() + &query;
        self.upgrade(path, link::UPGRADE).await
    }

    /// Borrows the link of a node from the server that holds it; streams are opened on it as on the node's own.
    ///
    /// # Errors
    /// [`ClientError`]; `link_elsewhere` when that server does not hold it.
    pub async fn peer_link(
        &self,
        server: &str,
        node: &str,
        class: LinkClass,
    ) -> Result<AttachIo, ClientError> {
        let query = routes::query(&[
            ("server", Some(server.to_owned())),
            ("node", Some(node.to_owned())),
            ("class", Some(class.as_str().to_owned())),
        ]);
        let path = routes::PEER_LINK.to_owned() + &query;
        self.upgrade(path, link::UPGRADE).await
    }

    /// Servers on the same database.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn server_list(&self) -> Result<ServerList, ClientError> {
        self.get(routes::SERVERS.to_owned()).await
    }

    /// All nodes.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn node_list(&self) -> Result<NodeList, ClientError> {
        self.get(routes::NODES.to_owned()).await
    }

    /// One node.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn node_get(&self, id: &str) -> Result<NodeView, ClientError> {
        self.get(routes::fill(routes::NODE, &[id])).await
    }

    /// Says what is to become of a node.
    ///
    /// # Errors
    /// [`ClientError`]; `conflict` where it may not.
    pub async fn node_change(&self, id: &str, order: NodeOrder) -> Result<NodeView, ClientError> {
        let path = routes::fill(routes::NODE_STATE, &[id]);
        self.post(path, &NodeChange { order }).await
    }

    /// Forgets a node that was decommissioned. What it had is lost.
    ///
    /// # Errors
    /// [`ClientError`]; `conflict` for one that was not.
    pub async fn node_forget(&self, id: &str) -> Result<NodeView, ClientError> {
        let path = routes::fill(routes::NODE, &[id]);
        self.json(self.call(Method::DELETE, path)).await
    }
}
