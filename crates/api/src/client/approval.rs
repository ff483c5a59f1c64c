//! Approvals.

use http::Method;

use super::{Client, ClientError};
use crate::approval::{
    ApprovalCreate, ApprovalDecide, ApprovalList, ApprovalListQuery, ApprovalState, ApprovalView,
};
use crate::routes;

impl Client {
    /// Asks a person for something.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn approval_create(&self, new: &ApprovalCreate) -> Result<ApprovalView, ClientError> {
        self.post(routes::APPROVALS.to_owned(), new).await
    }

    /// A page of approvals, newest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn approval_list(
        &self,
        query: &ApprovalListQuery,
    ) -> Result<ApprovalList, ClientError> {
        let query = routes::query(&[
            (
                "state",
                query.state.map(ApprovalState::as_str).map(str::to_owned),
            ),
            ("limit", query.limit.map(|limit| limit.to_string())),
            ("before", query.before.clone()),
        ]);
        self.get(format!("{}{query}", routes::APPROVALS)).await
    }

    /// An approval with all that is asked.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn approval_get(&self, id: &str) -> Result<ApprovalView, ClientError> {
        self.get(routes::fill(routes::APPROVAL, &[id])).await
    }

    /// Says yes or no.
    ///
    /// # Errors
    /// [`ClientError`]; `approval_own` for what the caller asked for.
    pub async fn approval_decide(
        &self,
        id: &str,
        said: &ApprovalDecide,
    ) -> Result<ApprovalView, ClientError> {
        self.post(routes::fill(routes::APPROVAL_DECISION, &[id]), said)
            .await
    }

    /// Takes a yes back that would still count.
    ///
    /// # Errors
    /// [`ClientError`]; `approval_over` where there is none.
    pub async fn approval_revoke(&self, id: &str) -> Result<ApprovalView, ClientError> {
        let path = routes::fill(routes::APPROVAL, &[id]);
        self.json(self.call(Method::DELETE, path)).await
    }
}
