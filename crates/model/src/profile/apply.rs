//! What a sandbox or a job is that is asked for with a profile. Pure: what follows is frozen in its spec.

use super::spec::{ProfileBase, ProfileSpec, ProfileUse, SecretRule, SecretWay, USER};
use crate::network::{BEYOND, Entry, NetworkRules};
use crate::place::{Placement, is_in};
use crate::sandbox_spec::{Defaults, SandboxSpec};
use crate::secret::{SecretHow, SecretUse};
use crate::spec::{AskedLimits, Findings, Invalid, JobSpec};
use std::collections::BTreeMap;

/// What a request says itself, where that cannot be seen any more when the defaults are filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Says {
    /// What it wants to reach.
    pub network: bool,
    /// For how long.
    pub timeout: bool,
}

impl ProfileSpec {
    /// What a sandbox is to be, and how long it is to live.
    ///
    /// # Errors
    /// `beyond_profile` for all that asks for more than the profile allows, each with its place.
    pub fn sandbox(
        &self,
        mut made_by: ProfileUse,
        (asked, ttl_ms): (SandboxSpec, u64),
        says: Says,
    ) -> Result<(SandboxSpec, u64), Vec<Invalid>> {
        let mut found = Findings::default();
        let root = self.root(asked.root.as_deref(), &mut found);
        let network = self.network(&asked.network, says, &mut found);
        let placement = self.placement(&asked.placement, &mut found);
        check_secrets(&self.lets_in(), &asked.secrets, &mut found);
        found.verdict()?;
        made_by.timeout_max_ms = self.timeout_max_ms;
        made_by.network.clone_from(&self.network);
        made_by.secrets = Some(self.lets_in());
        let ttl_ms = made_by.cut(self.timeout(ttl_ms, says));
        let theirs = asked.defaults;
        let spec = SandboxSpec {
            root,
            network,
            placement,
            env: over(&self.env, asked.env),
            limits: over_limits(self.limits, asked.limits),
            allow_root: asked.allow_root || self.allow_root,
            defaults: Defaults {
                user: theirs.user.or_else(|| self.user.clone()),
                workdir: theirs.workdir.or_else(|| self.workdir.clone()),
                start: theirs.start.or_else(|| self.start.clone()),
            },
            made_by: Some(Box::new(made_by)),
            ..asked
        };
        Ok((spec, ttl_ms))
    }

    /// What a job is to be.
    ///
    /// # Errors
    /// `beyond_profile` for all that asks for more than the profile allows; `profile_not_for_jobs` for what the
    /// profile says and a job cannot have. Each with its place.
    pub fn job(
        &self,
        mut made_by: ProfileUse,
        asked: JobSpec,
        says: Says,
    ) -> Result<JobSpec, Vec<Invalid>> {
        let mut found = Findings::default();
        self.check_for_job(&mut found);
        let root = self.root(asked.root.as_deref(), &mut found);
        let network = self.network(&asked.network, says, &mut found);
        let placement = self.placement(&asked.placement, &mut found);
        check_secrets(&self.lets_in(), &asked.secrets, &mut found);
        found.verdict()?;
        made_by.timeout_max_ms = self.timeout_max_ms;
        made_by.network.clone_from(&self.network);
        made_by.secrets = Some(self.lets_in());
        let timeout_ms = made_by.cut(self.timeout(asked.timeout_ms, says));
        Ok(JobSpec {
            root,
            network,
            placement,
            timeout_ms,
            env: over(&self.env, asked.env),
            limits: over_limits(self.limits, asked.limits),
            cwd: asked.cwd.or_else(|| self.workdir.clone()),
            made_by: Some(Box::new(made_by)),
            ..asked
        })
    }

    /// A job's sandbox begins with a root, and has one command that runs as one user.
    fn check_for_job(&self, found: &mut Findings) {
        let mut cannot = |what: &str| {
            let message =
                format!("the profile has {what}, which a job cannot have; make a sandbox");
            found.add("profile", "profile_not_for_jobs", message);
        };
        match &self.base {
            Some(ProfileBase::Snapshot(_)) => cannot("a snapshot for its base"),
            Some(ProfileBase::Template(_)) => cannot("a build for its base"),
            Some(ProfileBase::Root(_)) | None => {}
        }
        if self.start.is_some() {
            cannot("a start or ready command");
        }
        if self.user.as_deref().is_some_and(|user| user != USER) {
            cannot("another user than `user`");
        }
    }

    fn root(&self, asked: Option<&str>, found: &mut Findings) -> Option<String> {
        let mine = match &self.base {
            None => return asked.map(str::to_owned),
            Some(ProfileBase::Root(root)) => Some(root.as_str()),
            Some(ProfileBase::Snapshot(_) | ProfileBase::Template(_)) => None,
        };
        if asked.is_some() && asked != mine {
            found.add("root", BEYOND, "the profile has another base");
        }
        mine.map(str::to_owned)
    }

    fn network(&self, asked: &NetworkRules, says: Says, found: &mut Findings) -> NetworkRules {
        match &self.network {
            None => asked.clone(),
            Some(mine) if !says.network => mine.clone(),
            Some(mine) => mine.narrowed(asked).unwrap_or_else(|wrong| {
                found.0.extend(wrong);
                NetworkRules::default()
            }),
        }
    }

    /// What must be stays so: a profile may stand for machines that somebody has paid for, or that alone may
    /// have some data.
    fn placement(&self, asked: &Placement, found: &mut Findings) -> Placement {
        let mine = &self.placement;
        for (key, value) in &mine.on {
            if asked.on.get(key).is_some_and(|theirs| theirs != value) {
                let message = format!("the profile is for {key}={value}");
                found.add("placement.on", BEYOND, message);
            }
        }
        if let (Some(mine), Some(theirs)) = (&mine.location, &asked.location)
            && !is_in(theirs, mine)
        {
            let message = format!("the profile is for {mine}");
            found.add("placement.location", BEYOND, message);
        }
        asked.clone().over(mine)
    }

    fn timeout(&self, asked_ms: u64, says: Says) -> u64 {
        match self.timeout_ms {
            Some(default_ms) if !says.timeout => default_ms,
            _ => asked_ms,
        }
    }
}

fn over(
    mine: &BTreeMap<String, String>,
    asked: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut env = mine.clone();
    env.extend(asked);
    env
}

fn over_limits(mine: AskedLimits, asked: AskedLimits) -> AskedLimits {
    AskedLimits {
        cpu_millis: asked.cpu_millis.or(mine.cpu_millis),
        memory_bytes: asked.memory_bytes.or(mine.memory_bytes),
        pids: asked.pids.or(mine.pids),
        disk_bytes: asked.disk_bytes.or(mine.disk_bytes),
    }
}

impl ProfileSpec {
    /// The secrets that may be used with it: all where it says nothing, but in no variable.
    fn lets_in(&self) -> Vec<SecretRule> {
        let all = || SecretRule {
            name: "*".to_owned(),
            ways: vec![SecretWay::File, SecretWay::Header],
            hosts: Vec::new(),
        };
        self.secrets.clone().unwrap_or_else(|| vec![all()])
    }
}

impl ProfileUse {
    /// Checks secrets for what leaves that a sandbox is to have while it lives.
    pub(crate) fn check_leaving(
        &self,
        has: &[SecretUse],
        uses: &[SecretUse],
        found: &mut Findings,
    ) {
        if let Some(rules) = &self.secrets {
            return check_secrets(rules, uses, found);
        }
        let is_new = |one: &SecretUse| {
            !has.iter()
                .any(|own| own.name == one.name && own.how == one.how)
        };
        for (index, _) in uses.iter().enumerate().filter(|(_, one)| is_new(one)) {
            let message = "what the profile says of secrets was not kept when this sandbox was made; make a new one";
            found.add(format!("secrets[{index}]"), BEYOND, message);
        }
    }
}

/// The uses of secrets that rules do not let in.
pub(crate) fn check_secrets(rules: &[SecretRule], uses: &[SecretUse], found: &mut Findings) {
    for (index, one) in uses.iter().enumerate() {
        let way = match &one.how {
            SecretHow::File => SecretWay::File,
            SecretHow::Env { .. } => SecretWay::Env,
            // Neither is ever inside.
            SecretHow::Header { .. } | SecretHow::Upstream => SecretWay::Header,
        };
        if !rules.iter().any(|rule| rule.lets_in(one, way)) {
            let message = format!(
                "the profile does not say that `{}` may be used in this way ({})",
                one.name,
                way.as_str()
            );
            found.add(format!("secrets[{index}]"), BEYOND, message);
        }
    }
}

impl SecretRule {
    fn lets_in(&self, one: &SecretUse, way: SecretWay) -> bool {
        let is_named = self.name == "*" || self.name == one.name;
        is_named && self.ways.contains(&way) && self.is_for_host(&one.how)
    }

    fn is_for_host(&self, how: &SecretHow) -> bool {
        let host = match how {
            SecretHow::File | SecretHow::Env { .. } => return true,
            // The proxy is the request's to choose, so it is none of these hosts.
            SecretHow::Upstream => return self.hosts.is_empty(),
            SecretHow::Header { host, .. } => host,
        };
        // A host without a port is meant at the port of HTTPS.
        let place = if host.contains(':') {
            host.clone()
        } else {
            format!("{host}:443")
        };
        let entry: Result<Entry, _> = place.parse();
        self.hosts.is_empty()
            || entry.is_ok_and(|entry| self.hosts.iter().any(|mine| mine.covers(&entry)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ProfileId;
    use crate::network::{NetworkAsked, NetworkMode};
    use crate::sandbox_spec::StartCommand;

    fn made_by() -> ProfileUse {
        ProfileUse {
            id: ProfileId::from_parts(1, [1; 10]),
            name: "py".to_owned(),
            version: 3,
            build: None,
            timeout_max_ms: None,
            timeout_asked_ms: None,
            secrets: None,
            network: None,
        }
    }

    fn list(entries: &[&str]) -> NetworkRules {
        let allow = entries.iter().map(ToString::to_string).collect();
        NetworkRules::read(&NetworkAsked {
            allow,
            ..NetworkAsked::default()
        })
        .unwrap()
    }

    fn profile() -> ProfileSpec {
        ProfileSpec {
            base: Some(ProfileBase::Root("ubuntu".to_owned())),
            limits: AskedLimits {
                pids: Some(50),
                memory_bytes: Some(1 << 30),
                ..AskedLimits::default()
            },
            timeout_ms: Some(10_000),
            timeout_max_ms: Some(60_000),
            env: [("A", "mine"), ("B", "mine")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            workdir: Some("/srv".to_owned()),
            network: Some(list(&["*.a.test", "b.test:443"])),
            ..ProfileSpec::default()
        }
    }

    fn sandbox() -> SandboxSpec {
        crate::sandbox_spec::tests::spec()
    }

    fn job() -> JobSpec {
        crate::spec::tests::spec()
    }

    fn fields(found: Vec<Invalid>) -> Vec<(String, &'static str)> {
        found.into_iter().map(|one| (one.field, one.code)).collect()
    }

    fn using(how: SecretHow) -> SecretUse {
        SecretUse {
            name: "KEY".to_owned(),
            id: None,
            version: 0,
            how,
        }
    }

    const NOTHING: Says = Says {
        network: false,
        timeout: false,
    };
    const ALL: Says = Says {
        network: true,
        timeout: true,
    };

    #[test]
    fn what_nobody_says_is_as_the_profile_has_it() {
        let (made, ttl) = profile()
            .sandbox(made_by(), (sandbox(), 900_000), NOTHING)
            .unwrap();
        assert_eq!((ttl, made.root.as_deref()), (10_000, Some("ubuntu")));
        assert_eq!(Some(&made.network), profile().network.as_ref());
        assert_eq!(made.defaults.workdir.as_deref(), Some("/srv"));
        assert_eq!((made.limits, made.env), (profile().limits, profile().env));
        let kept = made.made_by.unwrap();
        assert_eq!((kept.version, kept.network), (3, profile().network));
        let made = profile().job(made_by(), job(), NOTHING).unwrap();
        assert_eq!(
            (made.timeout_ms, made.cwd.as_deref()),
            (10_000, Some("/srv"))
        );
        assert_eq!(made.profile, "default");
    }

    #[test]
    fn what_is_asked_goes_over_the_defaults_and_stays_within_the_ceilings() {
        let asked = JobSpec {
            env: [("A".to_owned(), "theirs".to_owned())].into(),
            limits: AskedLimits {
                pids: Some(9),
                ..AskedLimits::default()
            },
            network: list(&["x.a.test"]),
            timeout_ms: 3_600_000,
            cwd: Some("/tmp".to_owned()),
            ..job()
        };
        let made = profile().job(made_by(), asked, ALL).unwrap();
        assert_eq!(made.env.get("A").map(String::as_str), Some("theirs"));
        assert_eq!(made.env.get("B").map(String::as_str), Some("mine"));
        assert_eq!(
            (made.limits.pids, made.limits.memory_bytes),
            (Some(9), Some(1 << 30))
        );
        assert_eq!(
            (made.network, made.cwd.as_deref()),
            (list(&["x.a.test"]), Some("/tmp"))
        );
        let kept = made.made_by.unwrap();
        assert_eq!(
            (made.timeout_ms, kept.timeout_asked_ms),
            (60_000, Some(3_600_000))
        );
        assert_eq!((kept.within(1), kept.within(u64::MAX)), (1, 60_000));
    }

    #[test]
    fn more_than_the_profile_allows_is_refused_with_every_place() {
        let asked = SandboxSpec {
            root: Some("debian".to_owned()),
            network: NetworkRules::all_or_nothing(true),
            secrets: vec![
                using(SecretHow::Env {
                    var: "K".to_owned(),
                }),
                using(SecretHow::File),
            ],
            ..sandbox()
        };
        let found = profile().sandbox(made_by(), (asked, 1), ALL).unwrap_err();
        let places = ["root", "network.mode", "secrets[0]"].map(|field| (field.to_owned(), BEYOND));
        assert_eq!(fields(found), places);
    }

    #[test]
    fn a_secret_gets_in_only_as_the_profile_says() {
        let header = |host: &str| SecretHow::Header {
            host: host.to_owned(),
            header: "x".to_owned(),
            format: "{}".to_owned(),
        };
        let env = || SecretHow::Env {
            var: "K".to_owned(),
        };
        let rule = |name: &str, ways: &[SecretWay], hosts: &[&str]| SecretRule {
            name: name.to_owned(),
            ways: ways.to_vec(),
            hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
        };
        use SecretWay as W;
        let hosts = || vec![rule("KEY", &[W::Header], &["*.a.test:443"])];
        for (rules, how, expect) in [
            (None, SecretHow::File, true),
            (None, header("a.test"), true),
            (None, env(), false),
            (Some(vec![]), SecretHow::File, false),
            (Some(vec![rule("*", &[W::Env], &[])]), env(), true),
            (
                Some(vec![
                    rule("OTHER", &[W::Env], &[]),
                    rule("KEY", &[W::File], &[]),
                ]),
                env(),
                false,
            ),
            (Some(hosts()), header("x.a.test"), true),
            (Some(hosts()), header("x.a.test:8443"), false),
            (Some(hosts()), header("*.a.test"), true),
            (Some(hosts()), header("a.test"), false),
            (
                Some(vec![rule("KEY", &[W::Header], &[])]),
                header("a.test"),
                true,
            ),
        ] {
            let spec = ProfileSpec {
                secrets: rules,
                ..ProfileSpec::default()
            };
            let asked = SandboxSpec {
                secrets: vec![using(how.clone())],
                ..sandbox()
            };
            let made = spec.sandbox(made_by(), (asked, 1), NOTHING);
            assert_eq!(made.is_ok(), expect, "{how:?} by {:?}", spec.secrets);
        }
    }

    #[test]
    fn a_job_is_refused_what_it_cannot_have() {
        let spec = ProfileSpec {
            base: Some(ProfileBase::Snapshot("s".to_owned())),
            user: Some("root".to_owned()),
            allow_root: true,
            start: Some(StartCommand {
                command: Some("serve".to_owned()),
                ready: None,
            }),
            ..ProfileSpec::default()
        };
        let found = spec.job(made_by(), job(), NOTHING).unwrap_err();
        let all = vec![("profile".to_owned(), "profile_not_for_jobs"); 3];
        assert_eq!(fields(found), all);
        let plain = ProfileSpec {
            user: Some("user".to_owned()),
            ..ProfileSpec::default()
        };
        let made = plain.job(made_by(), job(), NOTHING).unwrap();
        assert_eq!(made.network.mode, NetworkMode::None);
    }
}
