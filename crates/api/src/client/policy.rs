//! Policies.

use http::Method;

use super::{Client, ClientError};
use crate::policy::{
    PermitView, PolicyList, PolicySpec, PolicyTest, PolicyTested, PolicyVersionList, PolicyView,
};
use crate::routes;

impl Client {
    /// Writes what a policy says: a new one, or its next version. Safe to repeat.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn policy_put(
        &self,
        name: &str,
        spec: &PolicySpec,
    ) -> Result<PolicyView, ClientError> {
        let call = self.call(Method::PUT, routes::fill(routes::POLICY, &[name]));
        self.json(self.with_json(call, spec)?).await
    }

    /// A policy, by its name or `NAME:VERSION`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn policy_get(&self, name: &str) -> Result<PolicyView, ClientError> {
        self.get(routes::fill(routes::POLICY, &[name])).await
    }

    /// All policies, by their names.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn policy_list(&self) -> Result<PolicyList, ClientError> {
        self.get(routes::POLICIES.to_owned()).await
    }

    /// The versions of a policy, newest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn policy_versions(&self, name: &str) -> Result<PolicyVersionList, ClientError> {
        self.get(routes::fill(routes::POLICY_VERSIONS, &[name]))
            .await
    }

    /// Deletes a policy with its versions, and answers what it was.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn policy_delete(&self, name: &str) -> Result<PolicyView, ClientError> {
        let path = routes::fill(routes::POLICY, &[name]);
        self.json(self.call(Method::DELETE, path)).await
    }

    /// What would become of a request.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn policy_test(&self, test: &PolicyTest) -> Result<PolicyTested, ClientError> {
        let call = self.call(Method::POST, routes::POLICY_TEST.to_owned());
        self.json(self.with_json(call, test)?).await
    }

    /// What a job keeps of the policies that it was decided by.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn job_permit(&self, id: &str) -> Result<PermitView, ClientError> {
        self.get(routes::fill(routes::JOB_PERMIT, &[id])).await
    }

    /// The same of a sandbox.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn sandbox_permit(&self, id: &str) -> Result<PermitView, ClientError> {
        self.get(routes::fill(routes::SANDBOX_PERMIT, &[id])).await
    }
}
