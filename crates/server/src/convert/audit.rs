//! The record of what happened, in both languages.

use api::Code;
use api::audit::{AuditChecked, AuditFlaw, AuditHead, AuditList, AuditListQuery, AuditView};
use service::{AuditPage, AuditQuery, Checked, Marked, Place};

use crate::error::Error;

/// A principal has at most this many bytes, and nothing else that is asked for is longer.
const TEXT_BYTES_MAX: usize = 256;

/// What somebody wants to read.
pub(crate) fn query(query: AuditListQuery) -> Result<AuditQuery, Error> {
    let after = match query.after.as_deref() {
        None => Some(Place::default()),
        Some(text) => place(text),
    };
    let after = after.ok_or_else(|| {
        let message = "must be the `next` of a page before";
        Error::field(Code::InvalidArgument, "after", message.to_owned())
    })?;
    for (field, text) in [
        ("principal", &query.principal),
        ("resource", &query.resource),
        ("resource_id", &query.resource_id),
        ("kind", &query.kind),
    ] {
        if text
            .as_ref()
            .is_some_and(|text| text.len() > TEXT_BYTES_MAX)
        {
            let message = format!("must have at most {TEXT_BYTES_MAX} bytes");
            return Err(Error::field(Code::InvalidArgument, field, message));
        }
    }
    Ok(AuditQuery {
        after,
        principal: query.principal,
        resource: query.resource,
        resource_id: query.resource_id,
        kind: query.kind,
        from_ms: query.from,
        to_ms: query.to,
    })
}

fn place(text: &str) -> Option<Place> {
    let (mark, position) = text.split_once('.')?;
    Some(Place {
        mark: mark.parse().ok()?,
        position: position.parse().ok()?,
    })
}

fn said(place: Place) -> String {
    format!("{}.{}", place.mark, place.position)
}

/// A page.
pub(crate) fn list(page: AuditPage) -> AuditList {
    AuditList {
        events: page.events.into_iter().map(view).collect(),
        next: said(page.next),
        more: page.more,
    }
}

fn view(one: Marked) -> AuditView {
    let position = one.event.position;
    AuditView {
        place: said(Place {
            mark: one.mark,
            position,
        }),
        at_ms: one.event.at_ms,
        principal: one.event.principal,
        kind: one.event.kind,
        resource: one.event.resource,
        resource_id: one.event.resource_id,
        version: one.event.version,
        data: serde_json::from_str(&one.event.data).unwrap_or_default(),
    }
}

/// What came of a check.
pub(crate) fn checked(checked: Checked) -> AuditChecked {
    let head = checked.head.map(|head| AuditHead {
        number: head.number,
        digest: head.digest,
        at_ms: head.at_ms,
    });
    let flaws = checked.flaws.into_iter().map(|(seal, flaw)| AuditFlaw {
        seal,
        code: flaw.as_str().to_owned(),
        message: flaw.what().to_owned(),
    });
    AuditChecked {
        seals: checked.seals,
        events: checked.events,
        last: checked.last.as_ref().map_or(0, |last| last.number),
        digest: checked.last.map(|last| last.digest),
        retired: checked.retired,
        head,
        flaws: flaws.collect(),
        more: checked.more,
    }
}
