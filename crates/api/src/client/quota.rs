//! Quotas.

use http::Method;

use super::{Client, ClientError};
use crate::people::PeopleListQuery;
use crate::quota::{QuotaList, QuotaPut, QuotaView};
use crate::routes;

impl Client {
    /// Says what a tenant, or a principal of the caller's, may have at a time.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn quota_put(&self, of: &str, put: &QuotaPut) -> Result<QuotaView, ClientError> {
        let call = self.call(Method::PUT, routes::fill(routes::QUOTA, &[of]));
        self.json(self.with_json(call, put)?).await
    }

    /// Takes a quota away.
    ///
    /// # Errors
    /// [`ClientError`]; `not_found`, also where there is none.
    pub async fn quota_remove(&self, of: &str) -> Result<QuotaView, ClientError> {
        let path = routes::fill(routes::QUOTA, &[of]);
        self.json(self.call(Method::DELETE, path)).await
    }

    /// A page of quotas, with what is used of them.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn quota_list(&self, query: &PeopleListQuery) -> Result<QuotaList, ClientError> {
        let query = routes::query(&[
            ("limit", query.limit.map(|limit| limit.to_string())),
            ("after", query.after.clone()),
        ]);
        self.get(format!("{}{query}", routes::QUOTAS)).await
    }
}
