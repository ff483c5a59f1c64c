//! Volumes.

use http::{HeaderName, HeaderValue, Method};

use super::{Client, ClientError};
use crate::routes;
use crate::volume::{VolumeCreate, VolumeList, VolumeListQuery, VolumeView};

impl Client {
    /// Makes a volume. With a key it is safe to repeat.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn volume_create(
        &self,
        volume: &VolumeCreate,
        key: Option<&str>,
    ) -> Result<VolumeView, ClientError> {
        let call = self.call(Method::POST, routes::VOLUMES.to_owned());
        let mut call = self.with_json(call, volume)?;
        if let Some(key) = key {
            let value = HeaderValue::from_str(key)
                .map_err(|_| self.protocol("use an Idempotency-Key that fits in a header"))?;
            call.headers
                .push((HeaderName::from_static(routes::IDEMPOTENCY_KEY), value));
        }
        self.json(call).await
    }

    /// A volume, by its name or its id.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn volume_get(&self, name: &str) -> Result<VolumeView, ClientError> {
        self.get(routes::fill(routes::VOLUME, &[name])).await
    }

    /// A page of volumes, by name.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn volume_list(&self, query: &VolumeListQuery) -> Result<VolumeList, ClientError> {
        let query = routes::query(&[
            ("limit", query.limit.map(|limit| limit.to_string())),
            ("after", query.after.clone()),
        ]);
        self.get(format!("{}{query}", routes::VOLUMES)).await
    }

    /// Deletes a volume with all that is in it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn volume_delete(&self, name: &str) -> Result<VolumeView, ClientError> {
        let path = routes::fill(routes::VOLUME, &[name]);
        self.json(self.call(Method::DELETE, path)).await
    }
}
