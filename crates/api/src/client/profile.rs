//! Profiles.

use http::Method;

use super::{Client, ClientError};
use crate::profile::{
    ProfileList, ProfileListQuery, ProfileSpec, ProfileVersionList, ProfileVersionQuery,
    ProfileView,
};
use crate::routes;

impl Client {
    /// Writes what a profile says: a new one, or its next version. Safe to repeat.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn profile_put(
        &self,
        name: &str,
        spec: &ProfileSpec,
    ) -> Result<ProfileView, ClientError> {
        let call = self.call(Method::PUT, routes::fill(routes::PROFILE, &[name]));
        self.json(self.with_json(call, spec)?).await
    }

    /// A profile, by its name, its id, or `NAME:VERSION`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn profile_get(&self, name: &str) -> Result<ProfileView, ClientError> {
        self.get(routes::fill(routes::PROFILE, &[name])).await
    }

    /// A page of profiles, newest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn profile_list(&self, query: &ProfileListQuery) -> Result<ProfileList, ClientError> {
        let query = routes::query(&[
            ("limit", query.limit.map(|limit| limit.to_string())),
            ("before", query.before.clone()),
        ]);
        self.get(format!("{}{query}", routes::PROFILES)).await
    }

    /// A page of the versions of a profile, newest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn profile_versions(
        &self,
        name: &str,
        query: &ProfileVersionQuery,
    ) -> Result<ProfileVersionList, ClientError> {
        let query = routes::query(&[
            ("limit", query.limit.map(|limit| limit.to_string())),
            ("before", query.before.map(|before| before.to_string())),
        ]);
        self.get(routes::fill(routes::PROFILE_VERSIONS, &[name]) + &query)
            .await
    }

    /// Deletes a profile with its versions and its builds, and answers what it was.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn profile_delete(&self, name: &str) -> Result<ProfileView, ClientError> {
        let path = routes::fill(routes::PROFILE, &[name]);
        self.json(self.call(Method::DELETE, path)).await
    }
}
