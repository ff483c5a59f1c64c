//! The way out of a job. Its rules are what it was asked with, and do not change.

use super::{Broken, Job};
use crate::{convert, inspect, way};
use api::job::Enforced;
use driver::driver::{Handle, Plan};
use model::network::NetworkRules;

impl Job {
    /// Rules that cannot be read let nothing out.
    pub(super) fn rules(&self) -> NetworkRules {
        let rules = self.spec.network.as_ref().map(convert::network);
        match rules {
            None => NetworkRules::default(),
            Some(Ok(rules)) => rules,
            Some(Err(why)) => {
                let job = self.lease.job_id.as_str();
                tracing::error!(job.id = job, why, "rules of a network cannot be read");
                NetworkRules::default()
            }
        }
    }

    /// What is in force around it, the way out included.
    pub(super) fn enforced(&self, plan: &Plan) -> Vec<Enforced> {
        let mut enforced = convert::enforced(&plan.enforced);
        way::describe(&mut enforced, &self.rules(), &self.node.inner.host);
        enforced
    }

    /// Gives a spare what it was made without. A job without a way out waits for nothing.
    pub(super) async fn prepare_way(&self, handle: &Handle) -> Result<(), Broken> {
        if self.on_spare && self.rules().has_way_out() {
            way::prepare(&self.node, handle).await?;
        }
        Ok(())
    }

    /// Opens the way out, if there is to be one, before the command is let go: no program takes the port, and none
    /// finds it closed.
    pub(super) async fn open_way(&mut self, handle: &Handle) -> Result<(), Broken> {
        let rules = self.rules();
        if rules.has_way_out() {
            let job = self.lease.job_id.parse().ok();
            let inspector = self.inspector.take();
            self.way = Some(way::open(&self.node, handle, job, (rules, inspector)).await?);
        }
        Ok(())
    }

    /// The same for a job that an earlier process of this node began.
    pub(super) fn reopen_way(&mut self, handle: &Handle) {
        let rules = self.rules();
        if rules.has_way_out() {
            let job = self.lease.job_id.parse().ok();
            let inspector = self.inspector.take();
            let inspector = inspector.map(|inspector| Box::pin(async { inspector }) as way::Coming);
            self.way = Some(way::reopen(&self.node, handle, job, (rules, inspector)));
        }
    }

    /// Sets up what looks into HTTPS, if there are rules about requests or secrets for what leaves; and the files
    /// that programs inside have to trust, beside those of the secrets.
    pub(super) fn look_into(&mut self) -> Result<(), String> {
        let fields = self.secrets.as_mut();
        let fields = fields.map(|secrets| std::mem::take(&mut secrets.fields));
        let fields = fields.unwrap_or_default();
        let password = self
            .secrets
            .as_mut()
            .and_then(|secrets| secrets.password.take());
        let sent = self
            .secrets
            .as_ref()
            .and_then(|secrets| secrets.sent.clone());
        if fields.is_empty() && password.is_none() && !self.rules().needs_trust() {
            return Ok(());
        }
        let looks = inspect::open(&self.node, &self.dir, fields, sent)?;
        let files = looks.files.into_iter();
        let files = files.map(|(path, text)| (path.to_owned(), text.into_bytes().into()));
        let secrets = self.secrets.get_or_insert_default();
        secrets.files.extend(files);
        self.inspector = Some(looks.inspector.with_password(password));
        self.looks_into = true;
        Ok(())
    }
}
