//! Every bound of the product, with the reason for its number.

/// How long a command may run when nobody says: long for a script, short for a mistake.
pub const TIMEOUT_DEFAULT_MS: u64 = 300_000;
/// The longest timeout: a day, as for sandboxes that live on.
pub const TIMEOUT_MAX_MS: u64 = 24 * 3600 * 1000;
/// From SIGTERM to SIGKILL: what container managers give a process to write its last file.
pub const GRACE_MS: u64 = 10_000;
/// How much longer than a job's timeout and grace its supervisor lets a sandbox live: set-up, and
/// carrying results out.
pub const LIFE_MARGIN_MS: u64 = 120_000;

/// Output kept of each stream from its beginning, in bytes; with the tail, 2,000,000 of a job.
pub const OUTPUT_HEAD_BYTES: u64 = 500_000;
/// Output kept of each stream from its end, in bytes.
pub const OUTPUT_TAIL_BYTES: u64 = 500_000;
/// The largest piece of output in one report: a batch of pipes' worth that still fits a request.
pub const OUTPUT_SEGMENT_BYTES: usize = 256 * 1024;
/// How long output waits for more before it is reported.
pub const OUTPUT_FLUSH_MS: u64 = 500;

/// The largest file kept from a job, and the largest put into one.
pub const FILE_BYTES_MAX: u64 = 1 << 30;
/// Files put into a job: a project's inputs, not its dependencies.
pub const FILES_MAX: usize = 256;
/// Files kept from a job.
pub const OUTPUTS_MAX: usize = 64;
/// Bytes of all files kept from one try of a job: four of the largest. A sparse file costs the command
/// nothing, so without this bound one job could ask for 64 GiB of our disk.
pub const ARTIFACT_TOTAL_BYTES_MAX: u64 = 4 << 30;
/// The body of a request that is not an upload.
pub const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The body of a request of somebody who has shown nothing yet: a request for a certificate with a key of 4096 bits
/// has 2 KiB, and all connections at their most together 50 MiB.
pub const SHORT_BODY_BYTES_MAX: usize = 24 * 1024;

/// Arguments of a command, in number.
pub const ARGV_MAX: usize = 1024;
/// Arguments and environment of a command, in bytes together: under the guest's control message.
pub const ARGV_BYTES_MAX: usize = 96 * 1024;
/// Environment variables.
pub const ENV_MAX: usize = 256;
/// A path: `PATH_MAX` of `limits.h`.
pub const PATH_BYTES_MAX: usize = 4096;
/// One name in a path: `NAME_MAX` of `limits.h`.
pub const NAME_BYTES_MAX: usize = 255;
/// The name of a root file system that an operator gave: an image's, with its registry and tag.
pub const ROOT_NAME_BYTES_MAX: usize = 128;
/// Root file systems of one node. Each is gone through at the start of its node, and has a launcher.
pub const ROOTS_MAX: usize = 32;
/// The name of a profile.
pub const PROFILE_BYTES_MAX: usize = 64;

/// Memory of a job when nobody says: enough for an interpreter with data, not for the machine's end.
pub const MEMORY_DEFAULT_BYTES: u64 = 512 << 20;
/// Less than this and no interpreter starts.
pub const MEMORY_MIN_BYTES: u64 = 1 << 20;
/// Processes and threads when nobody says.
pub const PIDS_DEFAULT: u32 = 256;
/// The most that may be asked for: the kernel's own default for all of a machine.
pub const PIDS_MAX: u32 = 32_768;
/// Thousandths of a processor when nobody says: one.
pub const CPU_DEFAULT_MILLIS: u32 = 1000;
/// Less than a hundredth of a processor cannot even end in time.
pub const CPU_MIN_MILLIS: u32 = 10;
/// Writable storage when nobody says, unless half of the memory is less.
pub const DISK_DEFAULT_BYTES: u64 = 1 << 30;
/// Room for the directories themselves.
pub const DISK_MIN_BYTES: u64 = 64 * 1024;

/// More storage than this is not kept in memory where a node can keep it on its disk: it would be other sandboxes'
/// memory.
pub const DISK_IN_MEMORY_BYTES: u64 = 1 << 30;

/// Free disk below which no new work and no file is taken: what is running must be able to report.
pub const FREE_DISK_MIN_BYTES: u64 = 1 << 30;
/// Jobs of one tenant that wait: enough for a burst, small enough to list.
pub const QUEUE_MAX: u64 = 100_000;
/// The most starts of one job, and the most leases of one that are lost before it starts: a job that
/// ends every node that takes it must not end them all for ever.
pub const ATTEMPTS_MAX: u32 = 10;
/// How long a job that only one node may take waits for it when nobody says: as long as may be asked
/// for. Without a bound it would wait for ever for a node that never comes back.
pub const PINNED_QUEUE_MS: u64 = TIMEOUT_MAX_MS;
/// How long a node's right to its jobs lasts without renewal when nobody says; what follows from it is in
/// `lease`.
pub const LEASE_MS: u64 = 300_000;
/// The longest time between two renewals: what a node is to do comes with their answers.
pub const HEARTBEAT_MS: u64 = 30_000;
/// How often a server says that it is there.
pub const SERVER_BEAT_MS: u64 = 5_000;
/// A server that was not heard for so long is not: two of what it says may get lost.
pub const SERVER_SILENT_MS: u64 = 15_000;
/// How long it is shown of a silent server when it was heard last.
pub const SERVER_FORGET_MS: u64 = 3_600_000;
/// The longest that one poll waits.
pub const POLL_WAIT_MAX_MS: u64 = 60_000;
/// The longest that one request waits for an outcome.
pub const JOB_WAIT_MAX_MS: u64 = 300_000;
/// How long a key of idempotency is remembered.
pub const IDEMPOTENCY_MS: u64 = 24 * 3600 * 1000;
/// How long an upload that no job names is kept.
pub const UPLOAD_MS: u64 = 24 * 3600 * 1000;
/// How long a finished job is kept, with its output and its files: long enough to look back at what was
/// done in the month.
pub const RETAIN_JOBS_MS: u64 = 30 * 24 * 3600 * 1000;
/// The newest jobs of one tenant, of which none goes before its time: as many as may wait. The finished
/// ones beyond them go earlier; at a few kilobytes each, these take less than a gigabyte.
pub const RETAIN_JOBS_MAX: u32 = 100_000;
/// How long a finished job is kept in any case, however many there are: whoever waited for its outcome and
/// was away for a moment still finds it.
pub const RETAIN_LEAST_MS: u64 = 3600 * 1000;
/// How long the bytes of a blob are kept that no row names. The row is written after the bytes, by a
/// process that may be another; an hour is far longer than any lies between the two.
pub const BLOB_GRACE_MS: u64 = 3600 * 1000;
/// How long a node that is silent is remembered: as long as a job may wait for it.
pub const NODE_FORGET_MS: u64 = TIMEOUT_MAX_MS;
/// Rows of one page of a list.
pub const PAGE_MAX: u32 = 500;
/// Rows of a page when nobody says.
pub const PAGE_DEFAULT: u32 = 50;

/// How long a sandbox that lives on lives when nobody says: a pause for thought, not a night.
pub const SANDBOX_TTL_DEFAULT_MS: u64 = 15 * 60 * 1000;
/// The longest time to live, counted anew at each extension: what it is for is done in a day, or somebody
/// is there to extend it.
pub const SANDBOX_TTL_MAX_MS: u64 = TIMEOUT_MAX_MS;
/// How long a sandbox waits for a node when nobody says: as long as one request waits for it.
pub const SANDBOX_QUEUE_DEFAULT_MS: u64 = JOB_WAIT_MAX_MS;
/// How long a node has to make, pause or resume a sandbox: it takes milliseconds, and an order whose answer
/// was lost is told again with the next heartbeat, of which three fit.
pub const SANDBOX_ORDER_MS: u64 = 120_000;
/// How long a paused sandbox is kept: a month, as for finished jobs. It holds storage of its node.
pub const SANDBOX_PAUSED_MS: u64 = RETAIN_JOBS_MS;
/// Sandboxes of one tenant that are not over: far more than one machine holds.
pub const SANDBOXES_MAX: u64 = 10_000;
/// Facts about commands in one report of a node: a busy agent starts tens in the time between two.
pub const EXEC_FACTS_MAX: usize = 256;
/// What is kept of the commands of one sandbox, in numbers of facts, of which a command has two: the newest
/// 10,000 are two days of an agent that runs one in 15 s.
pub const RETAIN_EXECS: u64 = 20_000;
/// Jobs that one node runs at a time: a launcher holds four times as many sandboxes, those among them that have ended
/// and are not forgotten yet, and all of them are told in one heartbeat.
pub const NODE_JOBS_MAX: u32 = 1024;
/// Sandboxes of one node: each has processes, groups and mounts, of which a machine has thousands; and all
/// of them are told in one heartbeat.
pub const NODE_SANDBOXES_MAX: u32 = 1000;
/// Entries of a sandbox's metadata: labels, not data.
pub const METADATA_MAX: usize = 64;
/// The key of an entry, in bytes, as for labels elsewhere.
pub const METADATA_KEY_BYTES_MAX: usize = 64;
/// All keys and values of a sandbox's metadata together, in bytes: every page of a list carries them.
pub const METADATA_BYTES_MAX: usize = 16 * 1024;
/// Entries of metadata that one list asks for: each is compared with every row that is read.
pub const METADATA_FILTERS_MAX: usize = 4;
/// The name of a sandbox, for people, in bytes.
pub const SANDBOX_NAME_BYTES_MAX: usize = 128;

/// Tenants of one installation: customers or departments, of each of which the loops go through the things.
pub const TENANTS_MAX: u64 = 1000;
/// Principals of one tenant: the people of a company, and their programs.
pub const PRINCIPALS_MAX: u64 = 10_000;
/// Principals that one tenant has sent away, each of which is a name of some bytes: ten times as many as it may have.
pub const PRINCIPALS_REMOVED_MAX: u64 = 100_000;
/// Keys of one tenant: some for each of its principals.
pub const KEYS_MAX: u64 = 20_000;
/// How long a key whose time is over is still listed, so that somebody can see why a program is refused: seven days.
pub const KEY_ENDED_KEPT_MS: u64 = 7 * 24 * 3_600_000;
/// The longest time that a key can be given: ten years, beyond which nobody means a time.
pub const KEY_LIFE_MAX_MS: u64 = 10 * 365 * 24 * 3_600_000;

/// Secrets of one tenant: a person keeps dozens, a service hundreds.
pub const SECRETS_MAX: u64 = 1000;
/// Passwords in clear that one principal's requests came with, and that sandboxes use or may use in the next minutes: one
/// for each proxy that somebody has.
pub const SECRETS_GIVEN_OF_ONE_MAX: u64 = 100;
/// The name of a secret, in bytes: it is the name of a file inside.
pub const SECRET_NAME_BYTES_MAX: usize = 128;
/// A value, in bytes: certificates and keys, and not files.
pub const SECRET_VALUE_BYTES_MAX: usize = 64 * 1024;
/// What a provider of values is asked for, in bytes: a path with a name in it.
pub const SECRET_REFERENCE_BYTES_MAX: usize = 512;
/// Versions of a secret that are kept: jobs that wait still find the one that they were given.
pub const SECRET_VERSIONS_KEPT: u64 = 10;
/// Entries of a secret's metadata, and the bytes of a key, a value and all together: what E2B's clients are
/// told.
pub const SECRET_METADATA_MAX: usize = 32;
/// See [`SECRET_METADATA_MAX`].
pub const SECRET_METADATA_KEY_BYTES_MAX: usize = 128;
/// See [`SECRET_METADATA_MAX`].
pub const SECRET_METADATA_VALUE_BYTES_MAX: usize = 1024;
/// See [`SECRET_METADATA_MAX`].
pub const SECRET_METADATA_BYTES_MAX: usize = 8192;
/// Secrets that one job or sandbox may use: each is looked for in every byte of its output.
pub const SECRET_USES_MAX: usize = 16;
/// How often a node looks at a sandbox: often enough to see a build, and a thousand of them cost it a few
/// percent of a processor.
pub const USAGE_EVERY_MS: u64 = 10_000;
/// Sandboxes whose guests are asked at each look; of more, each is looked at less often.
pub const USAGE_ASKED_MAX: usize = 128;
/// Moments of one sandbox in one report: those of some minutes without a server.
pub const USAGE_POINTS_MAX: usize = 32;
/// How long a node keeps what it could not report.
pub const USAGE_AGE_MAX_MS: u64 = 300_000;
/// What sandboxes used is kept for as long as one lives.
pub const RETAIN_USAGE_MS: u64 = SANDBOX_TTL_MAX_MS;
/// Moments that are shown at once: more than a screen has room for.
pub const USAGE_SHOWN_MAX: u32 = 500;
/// Snapshots of a tenant that are not gone: each keeps bytes on a node, and what is not asked to go stays.
pub const SNAPSHOTS_MAX: u64 = 1000;
/// Of one sandbox: more than anybody tells apart, and few enough that a loop in a script shows.
pub const SANDBOX_SNAPSHOTS_MAX: u64 = 100;
/// Snapshots whose bytes one node has or may have: it names them all in each heartbeat.
pub const NODE_SNAPSHOTS_MAX: u32 = 4096;
/// Snapshots that stand on each other: as many layers as a driver puts into one sandbox.
pub const SNAPSHOT_LAYERS_MAX: usize = 16;
/// A name of a snapshot with its tag.
pub const SNAPSHOT_NAME_BYTES_MAX: usize = 128;
/// Sandboxes of one fork: E2B's bound.
pub const FORK_MAX: u32 = 100;
/// A fork that was cut off by a crash leaves its snapshot; by then nobody makes sandboxes from it any more.
pub const FORK_MS: u64 = 10 * 60 * 1000;
/// Volumes of a tenant that are not gone: each keeps a file system on a node.
pub const VOLUMES_MAX: u64 = 1000;
/// Volumes of which one node has bytes or may have: it names them all in each heartbeat.
pub const NODE_VOLUMES_MAX: u32 = 4096;
/// The name of a volume, in bytes: a part of a path of the API.
pub const VOLUME_NAME_BYTES_MAX: usize = 128;
/// Volumes in one sandbox: each is a mount that its making pays for.
pub const VOLUME_MOUNTS_MAX: usize = 8;
/// Where a volume is in a sandbox, in bytes: all of them are in one message to the launcher.
pub const VOLUME_PATH_BYTES_MAX: usize = 512;
/// What a volume holds when nobody says: what an agent gathers in weeks. It takes what is written, not more.
pub const VOLUME_DEFAULT_BYTES: u64 = 10 << 30;
/// The smallest: room for a journal and for the file system itself.
pub const VOLUME_MIN_BYTES: u64 = 16 << 20;
/// The largest: more than the disk of a node that keeps volumes for many.
pub const VOLUME_MAX_BYTES: u64 = 1 << 40;
/// How long the sandbox lives that serves the content of a volume, counted from the last request that came
/// when half of it was over: an agent that reads and writes now and then finds it there, and one that is
/// done leaves nothing behind for long.
pub const VOLUME_SERVED_MS: u64 = 15 * 60 * 1000;

/// Entries of one list of network rules: what a person writes, with room; each is compared with every request.
pub const NETWORK_ENTRIES_MAX: usize = 256;

/// Servers of DNS that a sandbox's names are resolved by: as many as `resolv.conf(5)` has.
pub const NETWORK_DNS_MAX: usize = 3;

/// Bytes of certificates of whom is believed that he is the proxy which connections leave through: a chain of four.
pub const NETWORK_CA_BYTES_MAX: usize = 16 * 1024;
/// Rules about requests: what a person writes. Each is compared with every request to its host.
pub const REQUEST_RULES_MAX: usize = 64;
/// Methods, paths or fields of one of them.
pub const REQUEST_RULE_LIST_MAX: usize = 64;
/// The longest path of one, in bytes.
pub const REQUEST_PATH_BYTES_MAX: usize = 1024;
/// The longest name of a field that one requires, refuses or sets, in bytes: those of the registry have at most 50.
pub const REQUEST_FIELD_NAME_BYTES_MAX: usize = 128;
/// The longest value of a field that one requires or sets, in bytes: a token of a workload's identity has some 2 KiB.
pub const REQUEST_FIELD_BYTES_MAX: usize = 4096;
/// All of them together, in bytes: they are told with every change, and are in the record of the sandbox.
pub const REQUEST_RULES_BYTES_MAX: usize = 32 * 1024;
/// Connections to the outside of one sandbox at a time: a package manager has tens, a crawler hundreds. More
/// wait inside.
pub const NETWORK_CONNECTIONS_MAX: u64 = 1024;
/// Bytes that rules may bound what passes to: far more than passes in a life, and far from where numbers end.
pub const NETWORK_BYTES_MAX: u64 = u64::MAX >> 16;
/// Records of connections in one report of a node: some hundred bytes each.
pub const EGRESS_RECORDS_MAX: usize = 1000;
/// Records of connections that are kept of one sandbox or job: hours of a busy agent.
pub const RETAIN_EGRESS: u64 = 10_000;

/// Profiles of one tenant: a team has dozens, and each keeps bytes on a node.
pub const PROFILES_MAX: u64 = 500;
/// Versions of one profile that are kept: what was made with older ones has all of them in its own spec.
pub const PROFILE_VERSIONS_MAX: u64 = 100;
/// Rules about secrets of one profile: four times what one sandbox may use.
pub const PROFILE_SECRETS_MAX: usize = 64;
/// Hosts of one such rule: the places of one service.
pub const PROFILE_SECRET_HOSTS_MAX: usize = 32;
/// Tags of one profile: releases that somebody still wants to tell apart.
pub const PROFILE_TAGS_MAX: usize = 64;
/// Builds of one tenant that wait or are under way: a continuous integration's burst.
pub const BUILDS_OPEN_MAX: u64 = 100;
/// Builds that one server carries out at a time: each has a sandbox that works.
pub const BUILDS_AT_ONCE: usize = 4;
/// Steps of a recipe: a Dockerfile has tens.
pub const RECIPE_STEPS_MAX: usize = 256;
/// The arguments of one step, in bytes together: a command, and not a file.
pub const RECIPE_STEP_BYTES_MAX: usize = 64 * 1024;
/// A whole recipe in bytes: it is read with every look at its build.
pub const RECIPE_BYTES_MAX: usize = 512 * 1024;
/// How long a build may take, counted from its beginning, whatever became of it in between: E2B's bound.
pub const BUILD_MS: u64 = 3600 * 1000;
/// How long whoever carries out a build may be silent before another takes it: a crash costs no more.
pub const BUILD_LEASE_MS: u64 = 15_000;
/// How often a build is begun again whose server or node died under it: one that ends its node each time
/// must not go on for ever.
pub const BUILD_ATTEMPTS_MAX: u32 = 3;
/// How long the sandbox of a build lives when nobody says any more that it is needed.
pub const BUILD_SANDBOX_MS: u64 = 120_000;
/// Storage of a build's sandbox when nobody says: packages of an interpreter, in memory.
pub const BUILD_DISK_BYTES: u64 = 1 << 30;
/// Entries of a build's log that are kept: a verbose installation.
pub const BUILD_LOGS_MAX: u64 = 10_000;
/// A message of a build's log in bytes: a long line of a compiler.
pub const BUILD_LOG_BYTES_MAX: usize = 4096;
/// How long a build is kept that was asked for and never begun, and one that no tag names any more: for a day
/// the next one begins with what it has.
pub const BUILD_UNUSED_MS: u64 = 24 * 3600 * 1000;
/// How long a program that is started with each sandbox may take until it is ready. A create waits for it, and
/// clients wait for a create for a minute.
pub const READY_MS: u64 = 40_000;
/// The longest start or ready command in bytes.
pub const START_BYTES_MAX: usize = 32 * 1024;

/// Labels of one node, tags among them: as many as a person reads.
pub const NODE_LABELS_MAX: usize = 32;
/// One side of a label of a node, in bytes: as many as a part of a name in DNS.
pub const LABEL_BYTES_MAX: usize = 63;
/// Labels that one placement names. With their lengths they bound what is in an index: PostgreSQL takes 2,704
/// bytes in an entry of a B-tree.
pub const PLACEMENT_LABELS_MAX: usize = 8;
/// How long nodes that were not preferred leave work to those that were: a few polls, and less than a person
/// notices of a job that has to be somewhere.
pub const PREFER_MS: u64 = 5000;
/// How often the memory and the disk of a machine can be named in limits. A limit is a cap, and few use all of
/// theirs; clouds that sell functions go by similar numbers.
pub const OVERCOMMIT: u64 = 4;
/// What a node has failed counts half after this time: a driver that was repaired is soon believed.
pub const TROUBLE_HALF_MS: u64 = 60_000;
/// Failures that are counted at most, in thousandths: it is forgotten in five minutes whatever happened.
pub const TROUBLE_MAX: u32 = 16_000;
/// Different wishes that one look of a node goes through; the next look goes on from there.
pub const WISHES_MAX: u32 = 64;
/// How long the record of what happened is kept: a quarter, after which auditors ask.
pub const RETAIN_AUDIT_MS: u64 = 90 * 24 * 3600 * 1000;
/// The newest events of one tenant, of which none goes before its time: some four gigabytes.
pub const RETAIN_AUDIT_EVENTS: u64 = 10_000_000;

/// Policies of one tenant: a layer for everybody, and those for some of its principals and volumes. All are read into
/// memory.
pub const POLICIES_MAX: u64 = 200;
/// Layers that one decision goes by: each is looked at for each job.
pub const POLICY_LAYERS_MAX: usize = 64;
/// Versions of one policy that are kept; what was decided by older ones has it in its own permit.
pub const POLICY_VERSIONS_MAX: u64 = 100;
/// The name of a policy in bytes.
pub const POLICY_NAME_BYTES_MAX: usize = 64;
/// Entries of one list of a policy: what a person writes.
pub const POLICY_ENTRIES_MAX: usize = 256;
/// One entry of such a list in bytes: a command with some arguments.
pub const POLICY_ENTRY_BYTES_MAX: usize = 512;
/// Entries of a list that follows from several layers: more would make the permit of each job large. A list that
/// would be longer lets nothing through.
pub const PERMIT_ENTRIES_MAX: usize = 512;
/// What two lists have in common before what others hold is left out of it: four times what may be left.
pub const PERMIT_MEETS_MAX: usize = 4 * PERMIT_ENTRIES_MAX;
/// How much of all addresses of a family an allow list may name, in parts of 2^32, before that is as good as all: one
/// part of 256, which nobody needs who knows where they want to go.
pub const NETWORK_SHARE_MAX: u64 = 1 << 24;
/// The highest number that says where a policy stands among others of its layer.
pub const POLICY_PRIORITY_MAX: u16 = 1000;
/// How deep commands may be within commands (`sh -c`, `$( )`) where a policy reads them. A person writes two.
pub const COMMAND_DEPTH_MAX: u32 = 8;
/// Steps of comparing the commands of one request with the patterns of all policies: some milliseconds. A thousand
/// commands and all patterns of a policy take a quarter.
pub const COMMAND_STEPS_MAX: u64 = 4_000_000;
/// Packages of one list of dependencies: what a lock file of a large project has.
pub const DEPENDENCIES_MAX: usize = 2000;
/// The name of a package, its version, or that of a file of it, in bytes: what file systems allow.
pub const PACKAGE_BYTES_MAX: usize = 255;
/// A module in Rego in bytes: what a person reads in an hour.
pub const REGO_BYTES_MAX: usize = 64 * 1024;
/// What follows from all policies that apply together, in bytes: each job and sandbox keeps it.
pub const PERMIT_BYTES_MAX: usize = 64 * 1024;

/// What one job or sandbox counts at most for a quota of memory or storage, in bytes: no machine has more, and the sum
/// of all that a tenant can have stays a number of 64 bits.
pub const QUOTA_AMOUNT_MAX: u64 = 1 << 48;
/// The most that a quota can say; beyond it nobody means a bound.
pub const QUOTA_MOST_MAX: u64 = 1 << 60;
/// Principals of one tenant with a quota of their own: all of them are read at once.
pub const QUOTAS_MAX: u64 = 1000;
/// Requests at a time that a rate can let through: more is no rate.
pub const RATE_BURST_MAX: u32 = 1_000_000;
/// Principals, nodes and addresses whose rates one server remembers of each kind. Beyond them those that asked longest
/// ago are forgotten, and begin with all that there is.
pub const RATES_KNOWN_MAX: usize = 65_536;

/// How long something waits for a person when no policy says less: whoever is asked in the evening has read it by the
/// next one.
pub const APPROVAL_MS: u64 = 24 * 3600 * 1000;
/// The least that a policy can say: nobody reads faster.
pub const APPROVAL_LEAST_MS: u64 = 1000;
/// How long a yes to a request counts that has not been sent again, and the longest that one for a session does.
pub const APPROVAL_USE_MS: u64 = 24 * 3600 * 1000;
/// How long a yes for a session counts when nobody says: as long as somebody watches.
pub const APPROVAL_SESSION_MS: u64 = 3600 * 1000;
/// What one principal has waiting for a person: an agent in a loop must not bury what others wait for.
pub const APPROVALS_OF_ONE_MAX: u64 = 100;
/// What a tenant has waiting for its people: more than they read in a day.
pub const APPROVALS_MAX: u64 = 1000;
/// What is kept of a request for a person to read, in bytes. Nobody says yes to what they cannot read whole.
pub const APPROVAL_REQUEST_BYTES_MAX: usize = 128 * 1024;
/// A comment, or why somebody asks, in bytes: a paragraph.
pub const APPROVAL_TEXT_BYTES_MAX: usize = 2048;
