//! The table of stable error codes, and the body of every error answer.
//!
//! A code is a promise: programs branch on it, and each has a page in `docs/errors/`.
//! An agent reads `code`, `retryable` and `hint`; a person reads `message`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What every error answer carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// The stable code; see `docs/errors/<code>.md`.
    pub code: String,
    /// What happened, for a person.
    pub message: String,
    /// What to do about it.
    pub hint: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// Names this request in the server's log.
    pub request_id: String,
    /// Which fields were wrong, where that is what happened.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<ErrorDetail>,
}

/// One field that was wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorDetail {
    /// Where: `limits.memory_bytes`, `files[2].path`.
    pub field: String,
    /// A stable code of its own.
    pub code: String,
    /// What is wrong with it, for a person.
    pub message: String,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The code as it is written on the wire and in the name of its page.
    pub code: &'static str,
    /// The HTTP status that carries it.
    pub http_status: u16,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// What the command line exits with: 125 (ours) unless the command itself could not be run.
    pub exit_code: u8,
    /// What to do, in general.
    pub hint: &'static str,
}

/// Declares the enum, the list of all and the row of each from one table, so that none can be
/// forgotten in one of the three.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:literal, $retryable:literal,
       $exit:literal, $hint:literal;)*) => {
        /// A stable error code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its row in the table.
            #[must_use]
            pub const fn row(self) -> Row {
                match self {
                    $(Self::$name => Row {
                        code: $code,
                        http_status: $status,
                        retryable: $retryable,
                        exit_code: $exit,
                        hint: $hint,
                    },)*
                }
            }
        }
    };
}

codes! {
    // What was sent is wrong; sending it again does not help.
    /// The body is not JSON.
    MalformedJson = "malformed_json", 400, false, 125,
        "send one JSON object in UTF-8; the message names the line and column";
    /// The body or query has a field that does not exist.
    UnknownField = "unknown_field", 400, false, 125,
        "check the spelling against /openapi.json; unknown fields are never ignored";
    /// A value is missing, has the wrong type, or breaks a rule.
    InvalidArgument = "invalid_argument", 400, false, 125,
        "correct the fields named in details and send the request again";
    /// A limit is zero.
    LimitZero = "limit_zero", 400, false, 125,
        "leave the limit out to get the default, or ask for more than zero";
    /// A limit is more than the machine has.
    LimitBeyondMachine = "limit_beyond_machine", 400, false, 125,
        "ask for less; `cofferdam doctor` shows what the machine has";
    /// A limit cannot be enforced on this machine.
    LimitUnenforceable = "limit_unenforceable", 422, false, 125,
        "leave the limit out, or use a machine that can enforce it; see `cofferdam doctor`";
    /// Rules of a network cannot be read, or do not go together.
    NetworkRules = "network_rules", 400, false, 125,
        "write each entry as HOST, *.DOMAIN, ADDRESS[/BITS] or *, and perhaps :PORT, and a package as NAME==VERSION; docs/egress.md says how rules and proxies are written";
    /// There is no such profile.
    UnknownProfile = "unknown_profile", 400, false, 125,
        "use a profile that exists, or leave it out to get the default";
    /// The request asks for more than its profile allows.
    BeyondProfile = "beyond_profile", 400, false, 125,
        "details name each clause; ask for less, or use another profile: `cofferdam profile get NAME` shows this one";
    /// A policy cannot be read, or says what cannot be.
    PolicyInvalid = "policy_invalid", 400, false, 125,
        "details name each place in the document; see docs/policies.md";
    /// A policy does not allow the request.
    PolicyRefused = "policy_refused", 403, false, 125,
        "details name each clause and the policy that has it; `cofferdam policy test` shows what would be allowed";
    /// A policy has a rule that nothing here can hold for this request.
    PolicyUnenforceable = "policy_unenforceable", 422, false, 125,
        "details name the clause; ask for what it is not about, or have the policy changed";
    /// A policy wants a person to say yes.
    ApprovalNeeded = "approval_needed", 403, false, 125,
        "have somebody else say yes with `cofferdam approval approve ID`, the ID being the first detail; then send the same request again. A policy need not be sent again: the yes writes it";
    /// Nobody says yes to what they asked for themselves.
    ApprovalOwn = "approval_own", 403, false, 125,
        "somebody else has to decide it: `cofferdam principal create NAME --role operator` (of a policy: `--role admin`) and `cofferdam key create user:NAME` let one in, who decides with COFFERDAM_TOKEN and COFFERDAM_URL; the owner of the machine may decide what agents ask for";
    /// Policies were changed while the request was decided.
    PolicyChanged = "policy_changed", 409, true, 125,
        "send the request again; it is decided by the policies of now";
    /// The profile says something that a job cannot have.
    ProfileNotForJobs = "profile_not_for_jobs", 400, false, 125,
        "make a sandbox with this profile, or use another one for the job";
    /// Something else has the name of the profile.
    ProfileNameTaken = "profile_name_taken", 409, false, 125,
        "give the profile another name; the message says what has this one";
    /// What a profile has for its base is not there any more.
    ProfileBaseGone = "profile_base_gone", 409, false, 125,
        "give the profile another base with `cofferdam profile put`";
    /// No node has a root file system of this name.
    UnknownRoot = "unknown_root", 400, false, 125,
        "the message names those that there are; `cofferdam up --root NAME=DIR` gives a node one, and a \
         directory begins with `/`, or with `./` on the command line";
    /// A path leaves the place it must stay in.
    PathEscapes = "path_escapes", 400, false, 125,
        "use a path without `..` that stays inside the sandbox's writable places";
    /// A file that was named does not exist or cannot be read.
    FileMissing = "file_missing", 400, false, 125,
        "check the path of the file on the machine where the command is typed";
    /// A job names bytes that the server does not have.
    BlobMissing = "blob_missing", 400, false, 125,
        "send the bytes to POST /v1/blobs first and use the digest it answers";
    /// A job or sandbox names a secret that there is not.
    SecretMissing = "secret_missing", 400, false, 125,
        "`cofferdam secret ls` lists what there is; `cofferdam secret set NAME` makes one";
    /// A secret is from a provider that the server was not started with.
    SecretProviderUnknown = "secret_provider_unknown", 400, false, 125,
        "providers are named where the server is started: see --secret-provider of `cofferdam up`";
    /// The provider of a secret gave no value.
    SecretProviderFailed = "secret_provider_failed", 502, false, 125,
        "the message says which provider and why; check the reference, and then the provider";
    /// A sandbox names a volume that there is not.
    VolumeMissing = "volume_missing", 400, false, 125,
        "`cofferdam volume ls` lists what there is; `cofferdam volume create NAME` makes one";
    /// No node can keep a volume.
    VolumeUnsupported = "volume_unsupported", 422, false, 125,
        "a node keeps volumes when it runs as root and has loop devices and mkfs.ext4; \
         `cofferdam doctor` says what is missing";
    /// The body is larger than the route takes.
    BodyTooLarge = "body_too_large", 413, false, 125,
        "send less; files belong in POST /v1/blobs, not in the request";
    /// The body did not arrive in time.
    BodyTimeout = "body_timeout", 408, true, 125,
        "send the whole body without long pauses";
    /// The request line or headers cannot be used.
    BadRequest = "bad_request", 400, false, 125,
        "send a well-formed HTTP/1.1 request";

    // Who asks, and from where.
    /// No credential, or a wrong one.
    Unauthenticated = "unauthenticated", 401, false, 125,
        "send `Authorization: Bearer <token>`; `cofferdam up` keeps the token in its state directory";
    /// A token that an issuer has signed, or that looks so, does not count.
    TokenInvalid = "token_invalid", 401, false, 125,
        "get a new token from its issuer, or log in again with `cofferdam login`; the message says what is wrong where the signature is right";
    /// A login with a provider of identities did not come to an end.
    LoginFailed = "login_failed", 401, false, 125,
        "the message names what the provider said; `cofferdam login` begins again";
    /// There is no such enrollment token.
    EnrollTokenUnknown = "enroll_token_unknown", 401, false, 125,
        "make a new one with `cofferdam node enroll-token`, and copy all of it";
    /// The enrollment token has enrolled another machine.
    EnrollTokenUsed = "enroll_token_used", 409, false, 125,
        "each machine needs a token of its own: make one with `cofferdam node enroll-token`";
    /// The time of the enrollment token is over.
    EnrollTokenExpired = "enroll_token_expired", 401, false, 125,
        "a token counts for an hour: make a new one with `cofferdam node enroll-token`";
    /// The enrollment token was taken back.
    EnrollTokenRevoked = "enroll_token_revoked", 401, false, 125,
        "somebody took it back; make a new one with `cofferdam node enroll-token` if it was a mistake";
    /// A request for a certificate cannot be read, or is not signed with its key.
    BadCsr = "bad_csr", 400, false, 125,
        "send a PKCS #10 request in PEM, signed with its own key; `cofferdam node enroll` makes one";
    /// The certificate of a node is none that was given here.
    CertificateUnknown = "certificate_unknown", 401, false, 125,
        "enroll the machine here: `cofferdam node enroll`; a certificate of another authority opens nothing";
    /// The time of a node's certificate is over.
    CertificateExpired = "certificate_expired", 401, false, 125,
        "enroll the machine anew: a node renews its certificate by itself unless it was away for too long";
    /// The node's certificate is on the deny list.
    CertificateRevoked = "certificate_revoked", 401, false, 125,
        "the node was decommissioned; enroll the machine anew if it is to come back";
    /// A node speaks of a job or a sandbox that another node has.
    NotYourLease = "not_your_lease", 403, false, 125,
        "stop what it is about, and report nothing more: another node has it";
    /// A node speaks of a lease without the token of it, or with that of another.
    LeaseTokenWrong = "lease_token_wrong", 403, false, 125,
        "show the token that came with the lease, or with its last renewal; restart the node if this was one of ours";
    /// The credential is good, but not for this.
    Forbidden = "forbidden", 403, false, 125,
        "use a credential that may do this";
    /// The Host header names somebody else.
    ForbiddenHost = "forbidden_host", 403, false, 125,
        "use 127.0.0.1, [::1], localhost or the listen address as the host";
    /// A web page of another origin asks.
    ForbiddenOrigin = "forbidden_origin", 403, false, 125,
        "requests from web pages of other origins are refused; use the API from a program";

    // What is named.
    /// There is no such thing, or it is not yours to see.
    NotFound = "not_found", 404, false, 125,
        "check the path and the id; `cofferdam job ls` lists what there is";
    /// The path exists, but not with this method.
    MethodNotAllowed = "method_not_allowed", 405, false, 125,
        "use a method named in the Allow header";
    /// The route needs an upgraded connection.
    UpgradeRequired = "upgrade_required", 426, false, 125,
        "send `Connection: Upgrade` and the `Upgrade` of the route: `cofferdam-attach` for a job, \
         `cofferdam-tunnel` for a port";

    // What is, contradicts what is asked.
    /// The state of the thing does not allow this.
    Conflict = "conflict", 409, false, 125,
        "read the thing again; its state has changed or never allowed this";
    /// An approval was decided otherwise, or is over.
    ApprovalOver = "approval_over", 409, false, 125,
        "`cofferdam approval show ID` says what became of it; if it is still wanted, ask for it again";
    /// A node speaks a version of the node protocol that this server does not.
    NodeIncompatible = "node_incompatible", 409, false, 125,
        "install the server's version on the node; servers are upgraded before nodes";
    /// The same Idempotency-Key was used for another request.
    IdempotencyMismatch = "idempotency_mismatch", 409, false, 125,
        "use a new Idempotency-Key for a new request";
    /// The report belongs to a lease that is no longer in force.
    StaleEpoch = "stale_epoch", 409, false, 125,
        "stop the job and report nothing more about it: the lease is somebody else's now";
    /// A piece of output does not go on where its stream ends.
    OutputHole = "output_hole", 409, false, 125,
        "begin where the stored output ends, and say in `dropped_before` how many bytes will never come";
    /// The sandbox is paused, or is being paused.
    SandboxPaused = "sandbox_paused", 409, false, 125,
        "resume or connect to the sandbox first";
    /// The node of the sandbox cannot stop processes in their tracks.
    PauseUnsupported = "pause_unsupported", 409, false, 125,
        "extend its time instead; `cofferdam doctor` says what its node lacks";
    /// The sandbox is over, or is being taken away.
    SandboxGone = "sandbox_gone", 410, false, 125,
        "create a new sandbox; its record says why this one ended";
    /// The sandbox could not be copied.
    SnapshotFailed = "snapshot_failed", 409, false, 125,
        "the message says what its node lacks; the sandbox runs on as it was";
    /// Too many snapshots stand on each other.
    SnapshotTooDeep = "snapshot_too_deep", 409, false, 125,
        "begin again with a sandbox that stands on fewer snapshots, and copy what is needed into it";
    /// What was saved stands on a root file system that is not there any more.
    RootChanged = "root_changed", 409, false, 125,
        "give the node the root file system of then again, or begin without the snapshot";
    /// The tenant has something that would be left behind.
    TenantInUse = "tenant_in_use", 409, false, 125,
        "with a key of the tenant, end and delete what the message names, then delete the tenant";
    /// A sandbox has the volume.
    VolumeInUse = "volume_in_use", 409, false, 125,
        "take the sandbox away that the message names, or wait until its time is over";
    /// The job has no streams to attach to.
    NotAttachable = "not_attachable", 409, false, 125,
        "create the job with `attach`, and attach before it ends; its log has what it wrote";

    // What is inside a sandbox.
    /// The guest of the sandbox says no.
    GuestRefused = "guest_refused", 422, false, 125,
        "the message is from inside the sandbox: check the path, the process and the user that it names";
    /// The guest of the sandbox does not answer, or not as a guest does.
    GuestUnavailable = "guest_unavailable", 502, true, 125,
        "try again; if it stays so, something in the sandbox broke it: create a new one";
    /// Nobody listens at the port in the sandbox.
    PortClosed = "port_closed", 502, true, 125,
        "start the program that listens there, or wait until it does; only the sandbox's own loopback counts";

    // Not now.
    /// Too many jobs wait.
    QueueFull = "queue_full", 429, true, 125,
        "wait for jobs to finish, then send the request again";
    /// There is no room in a quota.
    QuotaExceeded = "quota_exceeded", 429, true, 125,
        "the message names the limit, what there is and who can raise it; end something, or ask for less: `cofferdam quota ls` shows all";
    /// Somebody sends more requests than the server takes of one.
    RateLimited = "rate_limited", 429, true, 125,
        "wait as long as `Retry-After` says; `RateLimit` says with each answer what is left";
    /// A bound was reached.
    TooMuch = "too_much", 429, true, 125,
        "slow down and send the request again later";
    /// No node can take it now.
    NoCapacity = "no_capacity", 503, true, 125,
        "send the request again later, or add a node";
    /// The node of a sandbox cannot put other rules of its network in force.
    NetworkRefused = "network_refused", 503, true, 125,
        "the rules before hold; look at `cofferdam doctor` on the node for /dev/net/tun, and give the rules again, or make the sandbox anew with them";
    /// Something that the server needs does not answer.
    Unavailable = "unavailable", 503, true, 125,
        "send the request again in a moment; /readyz says what is missing";
    /// The disk is full.
    DiskFull = "disk_full", 507, true, 125,
        "free space on the file system of the state directory; new work needs 1 GiB";
    /// The master key of secrets cannot be had, or is none.
    SecretKeyUnusable = "secret_key_unusable", 503, true, 125,
        "see --secret-key of `cofferdam up`; a key is 64 hexadecimal digits";
    /// Values are sealed with another master key.
    SecretKeyWrong = "secret_key_wrong", 503, false, 125,
        "start with the key that sealed them, or name it with --secret-key-before";
    /// A bug of ours.
    Internal = "internal", 500, true, 125,
        "this is a bug: report it with the request id, and look for it in the server's log";

    // The command that was asked for.
    /// The program does not exist in the sandbox.
    ProgramNotFound = "program_not_found", 422, false, 127,
        "check the name and PATH inside the sandbox, or bring the program with --file or --root";
    /// The program exists and cannot be executed.
    ProgramNotRunnable = "program_not_runnable", 422, false, 126,
        "check its mode, its interpreter line and its architecture";

    // What the client and the binary itself say.
    /// Nobody answers at the address.
    ServerUnreachable = "server_unreachable", 503, true, 125,
        "start the server (`cofferdam up`), or correct --url or COFFERDAM_URL; unset it to run without a server";
    /// The server did not answer in time.
    ServerTimeout = "server_timeout", 504, true, 125,
        "send the request again with the same Idempotency-Key; it may have been carried out";
    /// The answer makes no sense.
    ProtocolMismatch = "protocol_mismatch", 502, false, 125,
        "check that the address is a cofferdam server and that both ends have the same version";
    /// A configuration cannot be read, or says what is not known.
    ConfigInvalid = "config_invalid", 400, false, 125,
        "`cofferdam config check FILE` says where, and what is known there; docs/fleet.md has an example";
    /// What was asked for is for development, and this is production.
    DevelopmentOnly = "development_only", 400, false, 125,
        "take what the message names out of the configuration (for nodes: enroll them and use https), or say \
         mode = \"development\" on a machine of your own";
    /// Another process uses the state directory.
    StateLocked = "state_locked", 503, true, 125,
        "stop the other process, talk to its server instead, or use another --state directory";
    /// The state directory was written by a newer version.
    StateTooNew = "state_too_new", 503, false, 125,
        "use the newer binary, or another --state directory";
    /// This server and the others on its database do not have alike what they must.
    ServerMismatch = "server_mismatch", 503, false, 125,
        "give this server a copy of what the others have; docs/fleet.md says of what";
    /// Another server holds the link of the node.
    LinkElsewhere = "link_elsewhere", 421, true, 125,
        "look again which server holds it, and ask that";
    /// The state directory is not this user's alone, or cannot be used.
    StateUnusable = "state_unusable", 503, false, 125,
        "name a directory of your own that nobody else may enter with --state";
    /// A directory that is to be a root file system cannot be one.
    RootUnusable = "root_unusable", 503, false, 125,
        "unpack it as root into a directory that only root can write; docs/roots.md says how";
    /// A file or a stream of the machine where the command is typed cannot be written.
    FileUnwritable = "file_unwritable", 503, false, 125,
        "check that the directory may be written to, that its disk has room, and that no directory has \
         the name of the file";
    /// This machine cannot isolate.
    SandboxUnsupported = "sandbox_unsupported", 422, false, 125,
        "run `cofferdam doctor`: it says what is missing and what to install";
    /// Building the sandbox failed.
    DriverFailed = "driver_failed", 500, true, 125,
        "run `cofferdam doctor`, and look for the job in the log of the node";
}

impl Code {
    /// The code as it is written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.row().code
    }

    /// Finds a code by its text; `None` for text that a newer server may have sent.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text)
    }

    /// The error body for this code, with the hint of the table.
    #[must_use]
    pub fn body(self, message: impl Into<String>, request_id: impl Into<String>) -> ErrorBody {
        let row = self.row();
        ErrorBody {
            code: row.code.to_owned(),
            message: message.into(),
            hint: row.hint.to_owned(),
            retryable: row.retryable,
            request_id: request_id.into(),
            details: Vec::new(),
        }
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_come_back_from_their_text() {
        for code in Code::ALL {
            assert_eq!(Code::parse(code.as_str()), Some(*code));
        }
        assert_eq!(Code::parse("no_such_code"), None);
    }

    #[test]
    fn every_row_is_usable() {
        for code in Code::ALL {
            let row = code.row();
            assert!((400..600).contains(&row.http_status), "{code}");
            assert!((125..=127).contains(&row.exit_code), "{code}");
            assert!(!row.hint.is_empty() && !row.hint.ends_with('.'), "{code}");
            assert!(
                row.code
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{code}"
            );
        }
    }
}
