//! Quotas, in the words of both sides.

use api::Code;
use api::quota::{QuotaLimit, QuotaList, QuotaPut, QuotaView};
use model::quota::{Limit, Whose};
use service::{QuotaChange, QuotaPage, QuotaSeen};

use crate::error::Error;

/// A name that somebody else chose, as far as it is shown.
const SHOWN_MAX: usize = 64;

pub(crate) fn change(asked: QuotaPut) -> Result<QuotaChange, Error> {
    let one = |(name, most): (String, Option<u64>)| match Limit::parse(&name) {
        Some(limit) => Ok((limit, most)),
        None => {
            let known = Limit::ALL.map(Limit::as_str).join(", ");
            let name: String = name.chars().take(SHOWN_MAX).collect();
            let message = format!("there is no limit `{name}`; there are {known}");
            Err(Error::field(Code::UnknownField, "limits", message))
        }
    };
    asked.limits.into_iter().map(one).collect()
}

pub(crate) fn quota(seen: QuotaSeen) -> QuotaView {
    let used = |limit: &Limit| seen.used.get(limit).copied().unwrap_or_default();
    let limits = seen.row.most.iter().map(|(limit, most)| {
        let both = QuotaLimit {
            most: *most,
            used: used(limit),
        };
        (limit.as_str().to_owned(), both)
    });
    QuotaView {
        limits: limits.collect(),
        tenant: seen.row.tenant.to_string(),
        tenant_name: seen.tenant_name,
        principal: match seen.row.whose {
            Whose::Tenant => None,
            Whose::Principal(id) => Some(id.to_string()),
        },
        made_by: seen.row.made_by.to_string(),
        updated_at_ms: seen.row.updated_at_ms,
    }
}

pub(crate) fn quotas(page: QuotaPage) -> QuotaList {
    QuotaList {
        quotas: page.quotas.into_iter().map(quota).collect(),
        next: page.next,
    }
}
