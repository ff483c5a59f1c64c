//! The record of what happened.

use super::{Client, ClientError};
use crate::audit::{AuditCheckQuery, AuditChecked, AuditList, AuditListQuery};
use crate::routes;

impl Client {
    /// A page of the record, the oldest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn audit(&self, query: &AuditListQuery) -> Result<AuditList, ClientError> {
        let number = |value: Option<u64>| value.map(|value| value.to_string());
        let query = routes::query(&[
            ("after", query.after.clone()),
            ("principal", query.principal.clone()),
            ("resource", query.resource.clone()),
            ("resource_id", query.resource_id.clone()),
            ("kind", query.kind.clone()),
            ("from", number(query.from)),
            ("to", number(query.to)),
            ("limit", number(query.limit.map(u64::from))),
        ]);
        self.get(routes::AUDIT.to_owned() + &query).await
    }

    /// Checks a part of the record.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn audit_check(&self, query: &AuditCheckQuery) -> Result<AuditChecked, ClientError> {
        let query = routes::query(&[("after", Some(query.after.to_string()))]);
        self.get(routes::AUDIT_CHECK.to_owned() + &query).await
    }
}
