//! What cannot be done, in the words of Connect and of plain HTTP.

use hyper::StatusCode;
use rustix::io::Errno;

/// Connect's codes, as far as they are ours to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    /// The request cannot be understood, or names something that cannot be.
    InvalidArgument,
    /// The time that the request gave was over.
    DeadlineExceeded,
    /// It is not there.
    NotFound,
    /// It is there already.
    AlreadyExists,
    /// The user may not.
    PermissionDenied,
    /// A bound was reached.
    ResourceExhausted,
    /// No space is left; `resource_exhausted` to Connect, which has no word for it.
    NoSpace,
    /// Not in this state.
    FailedPrecondition,
    /// There is no such thing here.
    Unimplemented,
    /// Nothing that the request could help.
    Internal,
    /// Nobody listens where the request wants to go.
    Unavailable,
    /// There is no such user.
    Unauthenticated,
}

impl Code {
    /// Its name on the wire.
    pub(super) fn name(self) -> &'static str {
        match self {
            Code::InvalidArgument => "invalid_argument",
            Code::DeadlineExceeded => "deadline_exceeded",
            Code::NotFound => "not_found",
            Code::AlreadyExists => "already_exists",
            Code::PermissionDenied => "permission_denied",
            Code::ResourceExhausted | Code::NoSpace => "resource_exhausted",
            Code::FailedPrecondition => "failed_precondition",
            Code::Unimplemented => "unimplemented",
            Code::Internal => "internal",
            Code::Unavailable => "unavailable",
            Code::Unauthenticated => "unauthenticated",
        }
    }

    /// The status that goes with it, by Connect's table.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Code::InvalidArgument | Code::FailedPrecondition => StatusCode::BAD_REQUEST,
            Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::AlreadyExists => StatusCode::CONFLICT,
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Code::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
            Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Code::Unavailable => StatusCode::BAD_GATEWAY,
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        }
    }
}

/// Why a request is not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: Code,
    /// For a person; names what was asked for.
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Failure {
        let message = message.into();
        Failure { code, message }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Failure {
        Failure::new(Code::InvalidArgument, message)
    }

    /// A call that the kernel refused, while this was done.
    pub(super) fn errno(what: &str, errno: Errno) -> Failure {
        let code = match errno {
            Errno::NOENT => Code::NotFound,
            Errno::EXIST | Errno::NOTEMPTY => Code::AlreadyExists,
            Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::LOOP => Code::PermissionDenied,
            Errno::NOTDIR
            | Errno::ISDIR
            | Errno::NAMETOOLONG
            | Errno::INVAL
            | Errno::TOOBIG
            | Errno::XDEV
            | Errno::NXIO => Code::InvalidArgument,
            Errno::NOSPC | Errno::DQUOT => Code::NoSpace,
            Errno::AGAIN | Errno::MFILE | Errno::NFILE | Errno::NOMEM => Code::ResourceExhausted,
            _ => Code::Internal,
        };
        // The standard library's sentence ends with the number, which tells nobody more.
        let said = std::io::Error::from(errno).to_string();
        let said = said.split(" (os error").next().unwrap_or_default();
        Failure::new(code, format!("{what}: {said}"))
    }

    /// The body of an error, as Connect has it.
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::json!({"code": self.code.name(), "message": self.message})
    }
}
