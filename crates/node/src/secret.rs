//! The secrets of a job or a sandbox on this node: in memory, on their way inside, and nowhere else. The
//! records say which there are, so that the next process of this node can ask for them again.

use crate::files::{FileError, put_bytes};
use crate::outcome::Told;
use ::egress::inspect::rule::SecretField;
use ::egress::upstream::Password;
use api::client::ClientError;
use api::secret::{SecretHow, SecretsGiven, value_bytes};
use driver::guest::message::{Secret, SecretPlace, Serve, SmallFile};
use driver::guest::{GuestReader, GuestWriter};
use http::HeaderValue;
use model::limits;
use model::secret::SECRET_DIR;
use scrub::Known;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Only the workload's user reads it.
pub(crate) const MODE: u32 = 0o400;

/// Secrets that were given for one job or sandbox.
#[derive(Default)]
pub(crate) struct Secrets {
    /// Variables of the environment.
    pub(crate) env: Vec<(String, Zeroizing<String>)>,
    /// Files, by their paths inside.
    pub(crate) files: Vec<(String, Zeroizing<Vec<u8>>)>,
    /// The names of the secrets that are variables, and of those that are files, in their order.
    names: [Vec<String>; 2],
    /// What is added to requests on their way out.
    pub(crate) fields: Vec<SecretField>,
    /// The password of the proxy that connections leave through.
    pub(crate) password: Option<Password>,
    /// What is looked for in all that is told. Nothing when all values are too short to be found.
    pub(crate) known: Option<Arc<Known>>,
    /// Of these, what is added to requests: what hosts outside answer is looked through for it.
    pub(crate) sent: Option<Arc<Known>>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({} and {})", self.env.len(), self.files.len())
    }
}

impl Secrets {
    /// Gives them to the guest of a sandbox that lives on, which takes the values out of what it tells: it
    /// has them as long as the sandbox lives, also when this process is another one.
    pub(crate) fn add_to(&self, serve: &mut Serve) {
        let [env, files] = &self.names;
        let secret = |name: &String, place| Secret {
            name: name.clone(),
            place,
        };
        for ((var, value), name) in self.env.iter().zip(env) {
            let place = SecretPlace::Env(serve.env.len());
            serve.secrets.push(secret(name, place));
            serve.env.push((var.clone(), String::clone(value)));
        }
        for ((path, bytes), name) in self.files.iter().zip(files) {
            let place = SecretPlace::File(serve.files.len());
            serve.secrets.push(secret(name, place));
            serve.files.push(SmallFile {
                path: path.clone(),
                mode: MODE,
                bytes: bytes.to_vec(),
            });
        }
    }
}

/// What was given, or what a person is told when it cannot be used.
pub(crate) fn read(answer: Result<SecretsGiven, ClientError>) -> Result<Secrets, String> {
    let given =
        answer.map_err(|error| format!("its secrets cannot be had: {}", error.body().message))?;
    of(given)
}

/// The same of what was given.
pub(crate) fn of(given: SecretsGiven) -> Result<Secrets, String> {
    let mut values = Vec::new();
    for one in &given.secrets {
        let bytes = value_bytes(&one.value, one.encoding);
        let bytes = bytes.map_err(|_| format!("the secret `{}` cannot be read", one.name))?;
        values.push((one, bytes));
    }
    let named = values
        .iter()
        .map(|(one, bytes)| (one.name.as_str(), bytes.as_slice()));
    let known = Known::new(named);
    let known =
        known.map_err(|_| "its secrets are too much to be taken out of its output".to_owned())?;
    let sent = values
        .iter()
        .filter(|(one, _)| matches!(one.how, SecretHow::Header { .. }))
        .map(|(one, bytes)| (one.name.as_str(), bytes.as_slice()));
    let sent = Known::new(sent).map_err(|_| "its secrets are too much".to_owned())?;
    let (mut env, mut files, mut names) = (Vec::new(), Vec::new(), [Vec::new(), Vec::new()]);
    let mut fields = Vec::new();
    let mut password = None;
    for (one, bytes) in values {
        let [env_names, file_names] = &mut names;
        match &one.how {
            SecretHow::File => {
                file_names.push(one.name.clone());
                files.push((format!("{SECRET_DIR}/{}", one.name), bytes));
            }
            SecretHow::Upstream => password = Some(password_of(&one.name, &bytes)?),
            SecretHow::Env { var } => {
                env.push((var.clone(), text_of(&one.name, &bytes)?));
                env_names.push(one.name.clone());
            }
            SecretHow::Header {
                host,
                header,
                format,
            } => {
                let set = field(host, header, format, &bytes);
                let set = set.ok_or_else(|| {
                    let name = &one.name;
                    format!("the secret `{name}` cannot be in the header of a request")
                })?;
                fields.push(set);
            }
        }
    }
    // All of it goes to the guest in one frame.
    let bytes: usize = env.iter().map(|(_, value)| value.len()).sum();
    if bytes > limits::SECRET_VALUE_BYTES_MAX {
        return Err("its secrets are too much for an environment: use them as files".to_owned());
    }
    Ok(Secrets {
        env,
        files,
        names,
        fields,
        password,
        known,
        sent,
    })
}

fn password_of(name: &str, bytes: &[u8]) -> Result<Password, String> {
    let read = Password::new(bytes);
    read.ok_or_else(|| format!("the secret `{name}` cannot be a password: it has 1 to 255 bytes"))
}

fn text_of(name: &str, bytes: &[u8]) -> Result<Zeroizing<String>, String> {
    let text = std::str::from_utf8(bytes).ok();
    let text = text.filter(|text| !text.contains('\0'));
    let text = text.map(|text| Zeroizing::new(text.to_owned()));
    text.ok_or_else(|| format!("the secret `{name}` is no text, and cannot be a variable"))
}

/// A field with a secret. None for a value that has an end of a line or a NUL, RFC 9110 section 5.5.
fn field(host: &str, header: &str, format: &str, secret: &[u8]) -> Option<SecretField> {
    let (before, after) = format.split_once("{}")?;
    let text = Zeroizing::new([before.as_bytes(), secret, after.as_bytes()].concat());
    let mut value = HeaderValue::from_bytes(&text).ok()?;
    value.set_sensitive(true);
    let to = if host.contains(':') {
        host.parse()
    } else {
        format!("{host}:443").parse()
    };
    Some(SecretField {
        to: to.ok()?,
        name: header.parse().ok()?,
        value,
    })
}

/// Puts the files inside, by way of the guest.
pub(crate) async fn put(
    (reader, writer): (&mut GuestReader, &mut GuestWriter),
    secrets: &Secrets,
) -> Result<Result<(), Told>, FileError> {
    for (path, bytes) in &secrets.files {
        match put_bytes((&mut *reader, &mut *writer), path, MODE, bytes).await {
            Ok(()) => {}
            Err(error @ FileError::Refused { .. }) => {
                return Ok(Err(Told::refused(format!(
                    "`{path}` could not be made: {error}"
                ))));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Ok(()))
}
