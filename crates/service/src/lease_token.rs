//! Tokens of leases. A node's certificate says who speaks; the token says that it was given what it speaks of. So
//! who has stolen a certificate cannot act for what its node holds without registering in its place, which ends the
//! node's own process and is seen; and who has stolen a token has nothing without the certificate.
//!
//! A token is a keyed hash over the node, the job or sandbox, and the epoch, so there is no table of them: it ends
//! with its epoch. The key is in the database, which all servers share; whoever can read it there can write there
//! too.
//!
//! It has no time, and a renewal brings the same text again. What a node has spooled while nobody could be reached is
//! told with the token of then, after hours or days, so an end would need a grace that is longer than any outage. And
//! it would keep out nobody: who has a token and its certificate has read the node's memory, where the next one is too.
//!
//! What a node says of many things at once, and of what is over, goes with the name of its process in the token's
//! place: the same with which it renews its leases and is told their tokens.

use crate::error::Fail;
use crate::hex::hex;
use crate::node::{Beat, Registered};
use crate::poll::Polled;
use crate::{Ctx, Error, Service, random};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use model::id::{JobId, NodeId, SandboxId};
use model::node::PROTOCOL_LEASE_TOKENS;
use std::collections::BTreeMap;
use store::{Tx, server};

/// The name of the key among what all servers of a database share.
const KEY: &str = "lease_key";
/// Bytes of a token that are shown: guessed at a million a second, the first would be found after 10^25 years.
const SHOWN_BYTES: usize = 16;

/// The key of tokens.
pub(crate) struct LeaseKey(hmac::Key);

impl std::fmt::Debug for LeaseKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LeaseKey(..)")
    }
}

impl LeaseKey {
    fn of(text: &str) -> LeaseKey {
        LeaseKey(hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes()))
    }

    /// What the node shows that has this at this epoch. Ids have a fixed alphabet, so that no two of these read the
    /// same.
    fn token(&self, node: &NodeId, about: &str, epoch: u64) -> String {
        let text = format!("lease {node} {about} {epoch}");
        let tag = hmac::sign(&self.0, text.as_bytes());
        let shown = tag.as_ref().get(..SHOWN_BYTES).unwrap_or_default();
        format!("{epoch}.{}", hex(shown))
    }

    /// Whether a node that shows this may speak of it as it was at this epoch. Who has it at a later one may: what
    /// it says then is judged by the row.
    fn opens(&self, shown: &str, node: &NodeId, about: &str, epoch: Option<u64>) -> bool {
        let of = shown.split_once('.').and_then(|(of, _)| of.parse().ok());
        let Some(of) = of.filter(|of| epoch.is_none_or(|epoch| *of >= epoch)) else {
            return false;
        };
        let right = self.token(node, about, of);
        verify_slices_are_equal(right.as_bytes(), shown.as_bytes()).is_ok()
    }
}

/// Tokens by job or sandbox.
pub type LeaseTokens = BTreeMap<String, String>;

impl Service {
    /// The key of this database; made by the first who asks. Read once, when the first node comes.
    pub(crate) async fn lease_key(&self) -> Result<&LeaseKey, Error> {
        let reading = self.inner.lease_key.get_or_try_init(|| async {
            let known = self.inner.store.read(|tx| server::known_mark(tx, KEY));
            if let Some(known) = known.await? {
                return Ok(LeaseKey::of(&known));
            }
            let new = hex(&random::<32>()?);
            let key = self.unit(move |tx| Ok(server::mark(tx, KEY, &new)?));
            Ok(LeaseKey::of(&key.await?))
        });
        reading.await
    }

    /// What a node shows from now on about all that it is believed to have.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for who is no node; those of the database.
    pub async fn lease_tokens_of_registered(
        &self,
        ctx: &Ctx,
        registered: &Registered,
    ) -> Result<LeaseTokens, Error> {
        ctx.only_node()?;
        let jobs = registered
            .held
            .iter()
            .map(|row| (row.id.as_str(), row.epoch));
        let sandboxes = &registered.sandboxes;
        let sandboxes = sandboxes.iter().map(|row| (row.id.as_str(), row.epoch));
        self.lease_tokens(ctx, jobs.chain(sandboxes)).await
    }

    /// The same, about what it has renewed and what it is told to do.
    ///
    /// # Errors
    /// Those of [`Service::lease_tokens_of_registered`].
    pub async fn lease_tokens_of_beat(&self, ctx: &Ctx, beat: &Beat) -> Result<LeaseTokens, Error> {
        ctx.only_node()?;
        let all = beat.held.iter().map(|(id, epoch)| (id.as_str(), *epoch));
        self.lease_tokens(ctx, all).await
    }

    /// The same, about what is new to it.
    ///
    /// # Errors
    /// Those of [`Service::lease_tokens_of_registered`].
    pub async fn lease_tokens_of_poll(
        &self,
        ctx: &Ctx,
        polled: &Polled,
    ) -> Result<LeaseTokens, Error> {
        ctx.only_node()?;
        let jobs = polled.leases.iter().map(|row| (row.id.as_str(), row.epoch));
        let orders = polled.sandboxes.iter();
        let orders = orders.map(|work| (work.row.id.as_str(), work.row.epoch));
        self.lease_tokens(ctx, jobs.chain(orders)).await
    }

    /// Lets a node speak of many things at once, or of what is over, of which it has no token: with the name of its
    /// process, which nobody learns from a certificate. Of a process of the version before nothing is asked.
    ///
    /// # Errors
    /// [`Error::LeaseToken`]; those of the database.
    pub(crate) async fn check_process(&self, ctx: &Ctx) -> Result<(), Error> {
        let node = ctx.only_node()?.clone();
        let known = self.look(move |tx| {
            let speaks = store::node::protocol(tx, &node)?;
            let row = store::node::get(tx, &node)?;
            Ok((speaks, row.map(|row| row.incarnation)))
        });
        let (speaks, incarnation) = known.await?;
        let is_asked = speaks.is_some_and(|speaks| speaks >= u64::from(PROTOCOL_LEASE_TOKENS));
        let shown = ctx.lease_token.as_deref().unwrap_or_default();
        let wanted = incarnation.unwrap_or_default();
        let is_it = verify_slices_are_equal(wanted.as_bytes(), shown.as_bytes()).is_ok();
        match is_asked && !is_it {
            true => Err(Error::LeaseToken),
            false => Ok(()),
        }
    }

    async fn lease_tokens(
        &self,
        ctx: &Ctx,
        all: impl Iterator<Item = (&str, u64)>,
    ) -> Result<LeaseTokens, Error> {
        let (node, key) = (ctx.only_node()?, self.lease_key().await?);
        let one = |(id, epoch): (&str, u64)| (id.to_owned(), key.token(node, id, epoch));
        Ok(all.map(one).collect())
    }

    /// Lets a node speak of a job or a sandbox as it was at an epoch, or at any. Of a process of the version before
    /// nothing is asked.
    ///
    /// # Errors
    /// [`Error::LeaseToken`]; [`Error::NotYourLease`] where another node has it; those of the database.
    pub(crate) async fn check_lease(
        &self,
        ctx: &Ctx,
        about: &str,
        epoch: Option<u64>,
    ) -> Result<(), Error> {
        let node = ctx.only_node()?;
        if let Some(shown) = &ctx.lease_token {
            if self.lease_key().await?.opens(shown, node, about, epoch) {
                return Ok(());
            }
            return Err(self.not_opened(node, about, epoch).await);
        }
        let asked = node.clone();
        let speaks = self
            .inner
            .store
            .read(move |tx| store::node::protocol(tx, &asked));
        match speaks.await? {
            Some(speaks) if speaks >= u64::from(PROTOCOL_LEASE_TOKENS) => {
                Err(self.not_opened(node, about, epoch).await)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Why a node may not speak of this. That another node has it hears only who knows its epoch: of what is not there,
    /// and of what is at another epoch, the answer is the same, so that nobody learns by it what there is.
    async fn not_opened(&self, node: &NodeId, about: &str, epoch: Option<u64>) -> Error {
        let (own, about) = (node.clone(), about.to_owned());
        let looked = self.look(move |tx| {
            let has = holder(tx, &about)?;
            Ok(has.is_some_and(|(node, at)| node != own && epoch.is_none_or(|epoch| epoch == at)))
        });
        match looked.await {
            Ok(true) => Error::NotYourLease,
            Ok(false) => Error::LeaseToken,
            Err(error) => error,
        }
    }
}

/// Which node has this job or sandbox, or had it last, and at which epoch.
fn holder(tx: &mut Tx<'_>, about: &str) -> Result<Option<(NodeId, u64)>, Fail> {
    if let Ok(id) = about.parse::<JobId>() {
        let row = store::job::get(tx, None, &id)?;
        return Ok(row.and_then(|row| Some((row.node?, row.epoch))));
    }
    let Ok(id) = about.parse::<SandboxId>() else {
        return Ok(None);
    };
    let row = store::sandbox::get(tx, None, &id)?;
    Ok(row.and_then(|row| Some((row.node?, row.epoch))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_for_its_node_and_job_up_to_its_epoch_and_nothing_else() {
        let [one, two] = [1, 2].map(|n| NodeId::from_parts(n, [0; 10]));
        let key = LeaseKey::of("key");
        let token = key.token(&one, "job_1", 3);
        for (shown, node, about, epoch, opens) in [
            (&*token, &one, "job_1", Some(3), true),
            // The lease was lost and is this node's again: the row says that the old one is stale.
            (&token, &one, "job_1", Some(2), true),
            (&token, &one, "job_1", None, true),
            (&token, &one, "job_1", Some(4), false),
            (&token, &two, "job_1", Some(3), false),
            (&token, &one, "job_2", Some(3), false),
            (&token.replace("3.", "4."), &one, "job_1", Some(4), false),
            (&token.replace("3.", "03."), &one, "job_1", Some(3), false),
            (&token[..token.len() - 1], &one, "job_1", Some(3), false),
            ("3.", &one, "job_1", Some(3), false),
            ("", &one, "job_1", None, false),
        ] {
            assert_eq!(
                key.opens(shown, node, about, epoch),
                opens,
                "{shown} {about} {epoch:?}"
            );
        }
        assert!(!LeaseKey::of("another").opens(&token, &one, "job_1", Some(3)));
    }
}
