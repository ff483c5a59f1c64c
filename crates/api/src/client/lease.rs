//! Tokens of leases: what a node shows with everything that it says about a job or a sandbox.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::{HeaderName, HeaderValue};

use super::send::Call;
use super::{Client, ClientError};
use crate::node::LEASE_TOKEN_MAX_BYTES;
use crate::routes;

/// What this client has to show.
#[derive(Debug, Default)]
pub(crate) struct Tokens(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Tokens by job or sandbox.
    by: HashMap<String, HeaderValue>,
    /// The name of this process, for what goes without one.
    process: Option<HeaderValue>,
}

impl Tokens {
    fn lock(&self) -> MutexGuard<'_, Known> {
        // Each statement under the lock leaves the maps whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The epoch that a token is of: what is before its dot.
fn epoch(token: &HeaderValue) -> Option<u64> {
    token.to_str().ok()?.split_once('.')?.0.parse().ok()
}

impl Client {
    /// Shows this token with every call about this job or sandbox from now on, on all clones. One of an older epoch
    /// than the one that is there, or that can be no token, changes nothing.
    pub fn lease_token(&self, of: &str, token: &str) {
        if token.len() > LEASE_TOKEN_MAX_BYTES {
            return;
        }
        let Ok(mut new) = HeaderValue::from_str(token) else {
            return;
        };
        new.set_sensitive(true);
        let mut tokens = self.inner.tokens.lock();
        let newest = tokens.by.get(of).and_then(epoch);
        if epoch(&new).is_some() && newest <= epoch(&new) {
            tokens.by.insert(of.to_owned(), new);
        }
    }

    /// Forgets the token of a job or sandbox that this node has no more. One of a newer epoch than `of_epoch` stays: it
    /// came with what is to be done next about the same, while what was done before came to its end.
    pub fn lease_over(&self, of: &str, of_epoch: u64) {
        let mut tokens = self.inner.tokens.lock();
        let known = tokens.by.get(of).and_then(epoch);
        if known.is_some_and(|known| known <= of_epoch) {
            tokens.by.remove(of);
        }
    }

    /// Shows the name of this process where there is no token: about many things at once, and about what is over.
    /// One that fits in no header is not shown.
    pub fn process(&self, incarnation: &str) {
        let Ok(mut name) = HeaderValue::from_str(incarnation) else {
            return;
        };
        name.set_sensitive(true);
        self.inner.tokens.lock().process = Some(name);
    }

    /// Adds what this client has to show about a job or a sandbox, or about many.
    pub(crate) fn shown(&self, mut call: Call, of: &str) -> Call {
        let token = {
            let known = self.inner.tokens.lock();
            known.by.get(of).or(known.process.as_ref()).cloned()
        };
        let name = HeaderName::from_static(routes::LEASE_TOKEN);
        call.headers.extend(token.map(|token| (name, token)));
        call
    }

    /// Sends what a node says about a job or a sandbox.
    pub(crate) async fn say<T: serde::de::DeserializeOwned>(
        &self,
        (route, of): (&str, &str),
        body: &impl serde::Serialize,
    ) -> Result<T, ClientError> {
        let call = self.call(http::Method::POST, routes::fill(route, &[of]));
        let call = self.with_json(call, body)?;
        self.json(self.shown(call, of)).await
    }

    /// Sends what a node says about many of them.
    pub(crate) async fn say_of_many<T: serde::de::DeserializeOwned>(
        &self,
        route: &str,
        body: &impl serde::Serialize,
    ) -> Result<T, ClientError> {
        let call = self.call(http::Method::POST, route.to_owned());
        let call = self.with_json(call, body)?;
        self.json(self.shown(call, "")).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Endpoint;

    fn shown(client: &Client) -> Option<String> {
        let call = client.call(http::Method::POST, "/".to_owned());
        let call = client.shown(call, "job_1");
        let mut found = call.headers.iter();
        let found = found.find(|(name, _)| name == routes::LEASE_TOKEN)?;
        Some(found.1.to_str().unwrap().to_owned())
    }

    #[test]
    fn the_token_of_the_newest_epoch_is_shown_and_a_late_answer_does_not_bring_an_old_one_back() {
        let (dial, _) = tokio::sync::mpsc::channel(1);
        let client = Client::new(Endpoint::Memory(dial));
        assert_eq!(shown(&client), None);
        client.clone().lease_token("job_1", "2.aa");
        for useless in [
            "1.bb",
            "no",
            "x.cc",
            "3.\n",
            &format!("3.{}", "d".repeat(200)),
        ] {
            client.lease_token("job_1", useless);
        }
        assert_eq!(shown(&client).unwrap(), "2.aa");
        client.lease_token("job_1", "10.ee");
        assert_eq!(shown(&client).unwrap(), "10.ee");
        client.process("process-1");
        assert_eq!(shown(&client).unwrap(), "10.ee");
        client.lease_over("job_1", 9);
        assert_eq!(shown(&client).unwrap(), "10.ee", "what came meanwhile");
        client.lease_over("job_1", 10);
        assert_eq!(shown(&client).unwrap(), "process-1", "of what is over");
    }
}
