//! Quotas: how much a tenant, or one principal of it, may have at a time.
//!
//! What is used is counted from the rows themselves and never kept beside them, so that no crash can make the two
//! differ. Here it is decided what still fits.

use crate::id::{PrincipalId, TenantId};
use crate::limits;
use crate::spec::AskedLimits;
use std::collections::BTreeMap;
use std::fmt;

/// What has a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    /// Jobs that a node has.
    Jobs,
    /// Jobs in the queue.
    JobsWaiting,
    /// Sandboxes that are not over.
    Sandboxes,
    /// Thousandths of processors of jobs that nodes have and of sandboxes that are not over.
    CpuMillis,
    /// Bytes of their memory.
    MemoryBytes,
    /// Bytes of their storage.
    DiskBytes,
    /// Bytes of files that are kept of jobs.
    ArtifactBytes,
}

impl Limit {
    /// All, in the order in which they are shown.
    pub const ALL: [Limit; 7] = [
        Limit::Jobs,
        Limit::JobsWaiting,
        Limit::Sandboxes,
        Limit::CpuMillis,
        Limit::MemoryBytes,
        Limit::DiskBytes,
        Limit::ArtifactBytes,
    ];
    /// Those that a job keeps to while a node has it: beyond them it waits.
    pub const OF_JOBS: [Limit; 4] = [
        Limit::Jobs,
        Limit::CpuMillis,
        Limit::MemoryBytes,
        Limit::DiskBytes,
    ];
    /// Those that are looked at when a job comes in: how many wait, and whether a node may have it at once.
    pub const OF_ENTRY: [Limit; 5] = [
        Limit::Jobs,
        Limit::JobsWaiting,
        Limit::CpuMillis,
        Limit::MemoryBytes,
        Limit::DiskBytes,
    ];
    /// Those that a sandbox keeps to: beyond them it is refused.
    pub const OF_SANDBOXES: [Limit; 4] = [
        Limit::Sandboxes,
        Limit::CpuMillis,
        Limit::MemoryBytes,
        Limit::DiskBytes,
    ];

    /// How it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Limit::Jobs => "jobs",
            Limit::JobsWaiting => "jobs_waiting",
            Limit::Sandboxes => "sandboxes",
            Limit::CpuMillis => "cpu_millis",
            Limit::MemoryBytes => "memory_bytes",
            Limit::DiskBytes => "disk_bytes",
            Limit::ArtifactBytes => "artifact_bytes",
        }
    }

    /// The one of this name.
    pub fn parse(text: &str) -> Option<Limit> {
        Limit::ALL.into_iter().find(|one| one.as_str() == text)
    }

    /// What a number of it is a number of.
    fn what(self) -> &'static str {
        match self {
            Limit::Jobs => "jobs running",
            Limit::JobsWaiting => "jobs waiting",
            Limit::Sandboxes => "sandboxes",
            Limit::CpuMillis => "thousandths of a processor in use",
            Limit::MemoryBytes => "bytes of memory in use",
            Limit::DiskBytes => "bytes of storage in use",
            Limit::ArtifactBytes => "bytes of files kept",
        }
    }
}

/// An amount for each of some limits: what is the most, what is used, or what something takes.
pub type Amounts = BTreeMap<Limit, u64>;

/// Reads amounts by the names of their limits.
///
/// # Errors
/// The first name that is none.
pub fn amounts_from<'t>(
    named: impl IntoIterator<Item = (&'t String, &'t u64)>,
) -> Result<Amounts, &'t str> {
    let one = |(name, amount): (&'t String, &'t u64)| match Limit::parse(name) {
        Some(limit) => Ok((limit, *amount)),
        None => Err(name.as_str()),
    };
    named.into_iter().map(one).collect()
}

/// The same the other way round.
pub fn amounts_named(amounts: &Amounts) -> BTreeMap<String, u64> {
    let named = amounts.iter();
    named
        .map(|(limit, amount)| (limit.as_str().to_owned(), *amount))
        .collect()
}

/// What is counted for something with these limits. For one that is not named it is the default, and not what the
/// machine of its node makes of it: it must be known before there is a node.
pub fn taken(asked: &AskedLimits) -> Taken {
    let bounded = |amount: u64| amount.min(limits::QUOTA_AMOUNT_MAX);
    Taken {
        cpu_millis: asked
            .cpu_millis
            .unwrap_or(limits::CPU_DEFAULT_MILLIS)
            .into(),
        memory_bytes: bounded(asked.memory_bytes.unwrap_or(limits::MEMORY_DEFAULT_BYTES)),
        disk_bytes: bounded(asked.disk_bytes.unwrap_or(limits::DISK_DEFAULT_BYTES)),
    }
}

/// What a job or a sandbox takes while it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Thousandths of a processor.
    pub cpu_millis: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of storage.
    pub disk_bytes: u64,
}

impl Taken {
    /// As what it counts, with one of `what`.
    pub fn with_one(self, what: Limit) -> Amounts {
        Amounts::from([
            (what, 1),
            (Limit::CpuMillis, self.cpu_millis),
            (Limit::MemoryBytes, self.memory_bytes),
            (Limit::DiskBytes, self.disk_bytes),
        ])
    }
}

/// Whose quota it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Whose {
    /// That of the tenant.
    Tenant,
    /// That of one principal of it.
    Principal(PrincipalId),
}

/// A limit that something would go beyond.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Over {
    /// Whose.
    pub whose: Whose,
    /// Which.
    pub limit: Limit,
    /// The most that may be.
    pub most: u64,
    /// What there is.
    pub used: u64,
    /// What would come to it.
    pub takes: u64,
}

impl Over {
    /// Whether it shuts the quota for all that comes after. What is too large for it with nothing else there waits for
    /// another quota, and keeps out nothing smaller; where there is to be nothing at all, nothing is smaller.
    pub fn shuts(&self) -> bool {
        self.takes <= self.most || self.most == 0
    }

    /// Who can raise it.
    pub fn who_raises(&self) -> &'static str {
        match self.whose {
            Whose::Tenant => "an admin of the first tenant can raise it with `cofferdam quota set`",
            Whose::Principal(_) => "an admin of the tenant can raise it with `cofferdam quota set`",
        }
    }
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.whose {
            Whose::Tenant => f.write_str("its tenant")?,
            Whose::Principal(id) => write!(f, "{id}")?,
        }
        let (most, what) = (self.most, self.limit.what());
        // What is too large for it is refused without a look at what is used.
        match self.used == 0 && !self.shuts() {
            true => write!(f, " may have {most} {what}")?,
            false => write!(f, " has {} of {most} {what}", self.used)?,
        }
        if self.takes > 1 {
            write!(f, ", and this takes {}", self.takes)?;
        }
        Ok(())
    }
}

/// The first limit that would be exceeded.
pub fn over(whose: &Whose, most: &Amounts, used: &Amounts, takes: &Amounts) -> Option<Over> {
    takes.iter().find_map(|(limit, takes)| {
        let most = *most.get(limit)?;
        let used = used.get(limit).copied().unwrap_or(0);
        (used.saturating_add(*takes) > most).then(|| Over {
            whose: whose.clone(),
            limit: *limit,
            most,
            used,
            takes: *takes,
        })
    })
}

/// Of each limit the least that any of these say.
pub fn least<'a>(all: impl IntoIterator<Item = &'a Amounts>) -> Amounts {
    let mut least = Amounts::new();
    for (limit, most) in all.into_iter().flatten() {
        let one = least.entry(*limit).or_insert(*most);
        *one = (*one).min(*most);
    }
    least
}

/// The first limit of a principal that is more than its tenant has.
pub fn beyond_tenant(of_principal: &Amounts, of_tenant: &Amounts) -> Option<Limit> {
    let beyond = |(limit, most): (&Limit, &u64)| {
        let all = of_tenant.get(limit)?;
        (most > all).then_some(*limit)
    };
    of_principal.iter().find_map(beyond)
}

/// A limit of somebody, and what there is by it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// The most that may be, where something bounds it.
    pub most: Amounts,
    /// What there is.
    pub used: Amounts,
}

/// Lets things in, one after the other, while they fit. Who was refused once is refused from then on: a small thing
/// must not for ever go before a large one that waits. But for what would never fit, nobody waits.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    accounts: BTreeMap<(TenantId, Whose), Account>,
    closed: BTreeMap<(TenantId, Whose), Over>,
}

impl Gate {
    /// Adds what somebody may have and has.
    pub fn add(&mut self, tenant: TenantId, whose: Whose, account: Account) {
        self.accounts.insert((tenant, whose), account);
    }

    /// Lets one thing in, which counts from then on.
    ///
    /// # Errors
    /// The limit that it would exceed; nothing counts then.
    pub fn admit(
        &mut self,
        tenant: &TenantId,
        principal: &PrincipalId,
        takes: &Amounts,
    ) -> Result<(), Over> {
        // The principal's first: what it may not have anyway must not shut its tenant for others.
        let whose = [Whose::Principal(principal.clone()), Whose::Tenant];
        let of = whose.map(|whose| (tenant.clone(), whose));
        if let Some(over) = of.iter().find_map(|key| self.closed.get(key)) {
            return Err(over.clone());
        }
        for key in &of {
            let Some(account) = self.accounts.get(key) else {
                continue;
            };
            if let Some(over) = over(&key.1, &account.most, &account.used, takes) {
                if over.shuts() {
                    self.closed.insert(key.clone(), over.clone());
                }
                return Err(over);
            }
        }
        for key in &of {
            if let Some(account) = self.accounts.get_mut(key) {
                for (limit, amount) in takes {
                    let used = account.used.entry(*limit).or_default();
                    *used = used.saturating_add(*amount);
                }
            }
        }
        Ok(())
    }

    /// Whether nothing of a tenant fits any more.
    pub fn is_closed(&self, tenant: &TenantId) -> bool {
        self.closed.contains_key(&(tenant.clone(), Whose::Tenant))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tenant() -> TenantId {
        TenantId::local()
    }

    fn principal(number: u8) -> PrincipalId {
        format!("user:p{number}").parse().unwrap()
    }

    fn amounts(jobs: u64, memory: u64) -> Amounts {
        Amounts::from([(Limit::Jobs, jobs), (Limit::MemoryBytes, memory)])
    }

    #[test]
    fn every_limit_is_read_as_it_is_written() {
        for limit in Limit::ALL {
            assert_eq!(Limit::parse(limit.as_str()), Some(limit));
        }
        assert_eq!(Limit::parse("gold"), None);
    }

    #[test]
    fn what_is_not_named_counts_as_the_default_and_what_is_absurd_as_the_most() {
        let most = AskedLimits {
            memory_bytes: Some(u64::MAX),
            ..AskedLimits::default()
        };
        let taken = taken(&most);
        assert_eq!(taken.memory_bytes, limits::QUOTA_AMOUNT_MAX);
        assert_eq!(taken.disk_bytes, limits::DISK_DEFAULT_BYTES);
        assert_eq!(taken.cpu_millis, u64::from(limits::CPU_DEFAULT_MILLIS));
    }

    #[test]
    fn what_is_over_says_whose_limit_and_how_much() {
        let over = |whose| over(&whose, &amounts(10, 100), &amounts(10, 0), &amounts(1, 5));
        assert_eq!(
            over(Whose::Tenant).unwrap().to_string(),
            "its tenant has 10 of 10 jobs running"
        );
        let mut large = over(Whose::Principal(principal(1))).unwrap();
        assert!(large.shuts());
        large.takes = 11;
        assert!(!large.shuts());
        let nothing = Over {
            most: 0,
            ..large.clone()
        };
        assert!(nothing.shuts());
        assert_eq!(
            large.to_string(),
            "user:p1 has 10 of 10 jobs running, and this takes 11"
        );
        // Where nobody has looked at what is used, nothing is said of it.
        large.used = 0;
        assert_eq!(
            large.to_string(),
            "user:p1 may have 10 jobs running, and this takes 11"
        );
    }

    #[test]
    fn of_two_quotas_the_smaller_counts_for_each_limit() {
        let cpu = Amounts::from([(Limit::CpuMillis, 3), (Limit::Jobs, 4)]);
        let least = least([&amounts(9, 5), &cpu]);
        let expect = [
            (Limit::Jobs, 4),
            (Limit::CpuMillis, 3),
            (Limit::MemoryBytes, 5),
        ];
        assert_eq!(least, Amounts::from(expect));
    }

    #[test]
    fn a_principal_has_no_more_than_its_tenant() {
        assert_eq!(beyond_tenant(&amounts(10, 5), &amounts(10, 5)), None);
        assert_eq!(
            beyond_tenant(&amounts(10, 6), &amounts(10, 5)),
            Some(Limit::MemoryBytes)
        );
        assert_eq!(beyond_tenant(&amounts(10, 6), &Amounts::new()), None);
    }

    proptest! {
        #[test]
        fn a_gate_lets_in_what_fits_in_order_and_never_more(
            most in (0..8_u64, 0..40_u64),
            of_one in (0..8_u64, 0..40_u64),
            asks in proptest::collection::vec((0..3_u8, 1..12_u64), 0..30),
        ) {
            let mut gate = Gate::default();
            let account = |(jobs, memory)| Account { most: amounts(jobs, memory), used: Amounts::new() };
            gate.add(tenant(), Whose::Tenant, account(most));
            gate.add(tenant(), Whose::Principal(principal(0)), account(of_one));
            let (mut all, mut one) = ((0, 0), (0, 0));
            let mut refused = std::collections::BTreeSet::new();
            let mut is_shut = false;
            for (number, memory) in asks {
                let admitted = gate.admit(&tenant(), &principal(number), &amounts(1, memory));
                let fits = |(jobs, used): (u64, u64), (most, bytes): (u64, u64)| jobs < most && used + memory <= bytes;
                let fits_one = number != 0 || fits(one, of_one);
                // What alone is too large shuts nothing, unless nothing at all may be.
                let shuts = |(jobs, _): (u64, u64), (most, bytes): (u64, u64)| {
                    jobs >= most || memory <= bytes || bytes == 0
                };
                // By the rules, said once more: the principal first, then the tenant; who was refused stays so.
                let is_open = !is_shut && !refused.contains(&number);
                let expect = is_open && fits_one && fits(all, most);
                if is_open && !fits_one {
                    if shuts(one, of_one) {
                        refused.insert(number);
                    }
                } else if is_open && !fits(all, most) {
                    is_shut = shuts(all, most);
                }
                prop_assert_eq!(admitted.is_ok(), expect);
                if expect {
                    all = (all.0 + 1, all.1 + memory);
                    if number == 0 {
                        one = (one.0 + 1, one.1 + memory);
                    }
                }
                prop_assert_eq!(gate.is_closed(&tenant()), is_shut);
            }
            prop_assert!(all.0 <= most.0 && all.1 <= most.1);
            prop_assert!(one.0 <= of_one.0 && one.1 <= of_one.1);
        }
    }
}
