//! Secrets, in both languages.

use api::Code;
use api::encoding::Encoding;
use api::secret::{
    self, SecretCreate, SecretGiven, SecretHow, SecretList, SecretSource, SecretText, SecretUse,
    SecretView, SecretsGiven,
};
use model::secret as model_secret;
use service::{NewSecret, NewValue, SecretPage, SecretRow, SecretValue};

use crate::error::Error;

/// What a version is to be: the bytes of a value, or where it is.
pub(crate) fn value_or_source(
    text: &SecretText,
    encoding: Encoding,
    from: Option<SecretSource>,
) -> Result<NewValue, Error> {
    let Some(from) = from else {
        return value(text, encoding).map(NewValue::Kept);
    };
    if !text.is_empty() {
        let message = "a secret has a value or is from somewhere, and not both";
        return Err(Error::field(Code::InvalidArgument, "from", message));
    }
    Ok(NewValue::From(model_secret::SecretSource {
        provider: from.provider,
        reference: from.reference,
    }))
}

/// The bytes of a value.
pub(crate) fn value(text: &SecretText, encoding: Encoding) -> Result<SecretValue, Error> {
    let wrong =
        |bad: secret::BadValue| Error::field(Code::InvalidArgument, "value", bad.to_string());
    let mut bytes = secret::value_bytes(text, encoding).map_err(wrong)?;
    Ok(SecretValue::new(std::mem::take(&mut *bytes)))
}

pub(crate) fn new(asked: SecretCreate, value: NewValue) -> NewSecret {
    NewSecret {
        name: asked.name,
        value,
        metadata: asked.metadata,
    }
}

/// Where a page begins: after a name.
pub(crate) fn cursor(after: Option<String>) -> Result<Option<String>, Error> {
    let wrong = || Error::field(Code::InvalidArgument, "after", "no page ended with this");
    match after {
        Some(name) if !model_secret::is_secret_name(&name) => Err(wrong()),
        after => Ok(after),
    }
}

pub(crate) fn view(row: SecretRow) -> SecretView {
    SecretView {
        id: row.id.to_string(),
        name: row.name,
        version: row.version,
        metadata: row.metadata,
        from: row.source.map(|source| SecretSource {
            provider: source.provider,
            reference: source.reference,
        }),
        principal: row.principal.to_string(),
        created_at_ms: row.created_at_ms,
        updated_at_ms: row.updated_at_ms,
    }
}

pub(crate) fn list(page: SecretPage) -> SecretList {
    SecretList {
        secrets: page.secrets.into_iter().map(view).collect(),
        next: page.next,
    }
}

/// What a job or a sandbox is to use. A version cannot be asked for yet.
pub(crate) fn uses(asked: Vec<SecretUse>) -> Result<Vec<model_secret::SecretUse>, Error> {
    let one = |(index, asked): (usize, SecretUse)| {
        if asked.version.is_some() {
            let field = format!("secrets[{index}].version");
            let message = "jobs get the newest version; another cannot be asked for";
            return Err(Error::field(Code::InvalidArgument, &field, message));
        }
        Ok(model_secret::SecretUse {
            name: asked.name,
            id: None,
            version: 0,
            how: how_read(asked.how),
        })
    };
    asked.into_iter().enumerate().map(one).collect()
}

fn how_read(how: SecretHow) -> model_secret::SecretHow {
    match how {
        SecretHow::File => model_secret::SecretHow::File,
        SecretHow::Upstream => model_secret::SecretHow::Upstream,
        SecretHow::Env { var } => model_secret::SecretHow::Env { var },
        SecretHow::Header {
            host,
            header,
            format,
        } => model_secret::SecretHow::Header {
            host,
            header,
            format,
        },
    }
}

/// What a node says that it uses. Which secrets these are is not the node's to say.
pub(crate) fn uses_said(said: Vec<SecretUse>) -> Vec<model_secret::SecretUse> {
    let one = |one: SecretUse| model_secret::SecretUse {
        name: one.name,
        id: None,
        version: one.version.unwrap_or(0),
        how: how_read(one.how),
    };
    said.into_iter().map(one).collect()
}

fn how(how: model_secret::SecretHow) -> SecretHow {
    match how {
        model_secret::SecretHow::File => SecretHow::File,
        model_secret::SecretHow::Upstream => SecretHow::Upstream,
        model_secret::SecretHow::Env { var } => SecretHow::Env { var },
        model_secret::SecretHow::Header {
            host,
            header,
            format,
        } => SecretHow::Header {
            host,
            header,
            format,
        },
    }
}

pub(crate) fn uses_view(uses: Vec<model_secret::SecretUse>) -> Vec<SecretUse> {
    let one = |one: model_secret::SecretUse| SecretUse {
        name: one.name,
        version: Some(one.version),
        how: how(one.how),
    };
    uses.into_iter().map(one).collect()
}

/// For a node; the only place where values leave the server.
pub(crate) fn given(given: Vec<service::SecretGiven>) -> SecretsGiven {
    let one = |one: service::SecretGiven| {
        let (value, encoding) = secret::value_text(one.value.bytes());
        SecretGiven {
            name: one.name,
            version: one.version,
            how: how(one.how),
            value,
            encoding,
        }
    };
    SecretsGiven {
        secrets: given.into_iter().map(one).collect(),
    }
}
