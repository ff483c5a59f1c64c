//! Tenants, principals and keys.

use http::Method;

use super::{Client, ClientError};
use crate::people::{
    KeyCreate, KeyList, KeyMade, KeyView, LoginInfo, Me, PeopleListQuery, PrincipalCreate,
    PrincipalList, PrincipalPut, PrincipalView, TenantCreate, TenantList, TenantMade, TenantView,
};
use crate::routes;

fn page(route: &str, query: &PeopleListQuery) -> String {
    let query = routes::query(&[
        ("limit", query.limit.map(|limit| limit.to_string())),
        ("after", query.after.clone()),
    ]);
    format!("{route}{query}")
}

impl Client {
    /// Who we are to the server.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn me(&self) -> Result<Me, ClientError> {
        self.get(routes::ME.to_owned()).await
    }

    /// With what to get a token for this server.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn login_info(&self) -> Result<LoginInfo, ClientError> {
        self.get(routes::LOGIN.to_owned()).await
    }

    /// Makes a tenant with its first admin and a key for that.
    ///
    /// # Errors
    /// [`ClientError`]; `conflict` when the name is taken.
    pub async fn tenant_create(&self, new: &TenantCreate) -> Result<TenantMade, ClientError> {
        self.post(routes::TENANTS.to_owned(), new).await
    }

    /// A page of tenants.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn tenant_list(&self, query: &PeopleListQuery) -> Result<TenantList, ClientError> {
        self.get(page(routes::TENANTS, query)).await
    }

    /// Deletes a tenant that has nothing any more.
    ///
    /// # Errors
    /// [`ClientError`]; `tenant_in_use`.
    pub async fn tenant_remove(&self, name: &str) -> Result<TenantView, ClientError> {
        let path = routes::fill(routes::TENANT, &[name]);
        self.json(self.call(Method::DELETE, path)).await
    }

    /// Lets a principal in.
    ///
    /// # Errors
    /// [`ClientError`]; `conflict` when there is one of this name.
    pub async fn principal_create(
        &self,
        new: &PrincipalCreate,
    ) -> Result<PrincipalView, ClientError> {
        self.post(routes::PRINCIPALS.to_owned(), new).await
    }

    /// A page of principals.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn principal_list(
        &self,
        query: &PeopleListQuery,
    ) -> Result<PrincipalList, ClientError> {
        self.get(page(routes::PRINCIPALS, query)).await
    }

    /// Gives a principal another role.
    ///
    /// # Errors
    /// [`ClientError`]; `conflict` for the last admin of a tenant.
    pub async fn principal_put(
        &self,
        id: &str,
        put: &PrincipalPut,
    ) -> Result<PrincipalView, ClientError> {
        let call = self.call(Method::PUT, routes::fill(routes::PRINCIPAL, &[id]));
        self.json(self.with_json(call, put)?).await
    }

    /// Sends a principal away, and takes its keys back.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn principal_remove(&self, id: &str) -> Result<PrincipalView, ClientError> {
        let path = routes::fill(routes::PRINCIPAL, &[id]);
        self.json(self.call(Method::DELETE, path)).await
    }

    /// Makes a key. Its text is in the answer, and nowhere else.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn key_create(&self, new: &KeyCreate) -> Result<KeyMade, ClientError> {
        self.post(routes::KEYS.to_owned(), new).await
    }

    /// A page of keys.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn key_list(&self, query: &PeopleListQuery) -> Result<KeyList, ClientError> {
        self.get(page(routes::KEYS, query)).await
    }

    /// Takes a key back.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn key_revoke(&self, id: &str) -> Result<KeyView, ClientError> {
        let path = routes::fill(routes::KEY, &[id]);
        self.json(self.call(Method::DELETE, path)).await
    }
}
