//! The streams of one running command: guest to spool to client, client to guest.
//!
//! One task owns all of it and waits for whatever comes first. Output is acknowledged to the guest only
//! when it is in the spool and the client that is attached has taken it, so a slow reader slows the
//! command down, as in any pipe, and nothing in between grows.

use crate::spool::Spool;
use api::attach::{Frame, FrameKind, FrameReader, write_frame};
use api::client::{Client, ClientError};
use api::log::StreamName;
use api::node::{JobOutput, OutputSegment};
use bytes::Bytes;
use driver::guest::message::{Exited, FromGuest, StartFailure, Stream, ToGuest, WINDOW};
use driver::guest::{GuestError, GuestReader, GuestWriter, Incoming};
use model::limits;
use scrub::Cleaner;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Frames between the pump and the task that writes to a client: enough to overlap the two.
const FRAMES: usize = 4;

/// How the streams ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The command ended, and all of its output is in the spools.
    Exited(Exited),
    /// It was never there.
    NotStarted(StartFailure),
}

/// Why they could not be carried to their end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PumpError {
    #[error("carry the streams")]
    Guest(#[from] GuestError),
    #[error("keep the output")]
    Spool(#[source] std::io::Error),
}

/// A client that is attached.
#[derive(Debug)]
struct Attached {
    output: mpsc::Sender<(FrameKind, Bytes)>,
    input: mpsc::Receiver<Frame>,
}

/// The lease that output is reported under.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    pub(crate) job_id: String,
    pub(crate) attempt: u32,
    pub(crate) epoch: u64,
}

type Report = Pin<Box<dyn Future<Output = (StreamName, Result<(), ClientError>)> + Send>>;

/// The streams.
pub(crate) struct Pump {
    pub(crate) reader: GuestReader,
    pub(crate) writer: GuestWriter,
    pub(crate) stdout: Spool,
    pub(crate) stderr: Spool,
    pub(crate) lease: Lease,
    pub(crate) api: Client,
    pub(crate) cancel: CancellationToken,
    /// Of the two streams, where there is something to take out of them.
    cleaners: Option<(Cleaner, Cleaner)>,
    client: Option<Attached>,
    /// Standard input that the guest has no room for yet.
    pending: Bytes,
    sent: u64,
    taken: u64,
    stopping: bool,
    report: Option<Report>,
    reported_last: Option<StreamName>,
}

/// What the pump waits for.
enum Event {
    Guest(Result<Incoming, GuestError>),
    Client(Option<Frame>),
    Attach(DuplexStream),
    Cancel,
    Reported(StreamName, Result<(), ClientError>),
    Flush,
}

impl Pump {
    pub(crate) fn new(
        (reader, writer): (GuestReader, GuestWriter),
        (stdout, stderr): (Spool, Spool),
        lease: Lease,
        api: Client,
        cancel: CancellationToken,
    ) -> Pump {
        Pump {
            reader,
            writer,
            stdout,
            stderr,
            lease,
            api,
            cancel,
            cleaners: None,
            client: None,
            pending: Bytes::new(),
            sent: 0,
            taken: 0,
            stopping: false,
            report: None,
            reported_last: None,
        }
    }

    /// Takes secrets out of all that the job writes, from here on.
    pub(crate) fn scrub(&mut self, stdout: Option<Cleaner>, stderr: Option<Cleaner>) {
        self.cleaners = stdout.zip(stderr);
    }

    /// Connects a client; the one before it is let go.
    pub(crate) fn attach(&mut self, io: DuplexStream) {
        let (read, write) = tokio::io::split(io);
        let (output, frames) = mpsc::channel(FRAMES);
        let (tell, input) = mpsc::channel(FRAMES);
        tokio::spawn(write_to_client(write, frames));
        tokio::spawn(read_from_client(FrameReader::new(read), tell));
        self.client = Some(Attached { output, input });
    }

    /// Carries the streams until the command has ended.
    pub(crate) async fn run(
        &mut self,
        attach: &mut mpsc::Receiver<api::attach::LinkOpen>,
    ) -> Result<End, PumpError> {
        let flush = Duration::from_millis(limits::OUTPUT_FLUSH_MS);
        let mut flush = tokio::time::interval_at(tokio::time::Instant::now() + flush, flush);
        loop {
            let event = self.event(attach, &mut flush).await;
            match event {
                Event::Guest(incoming) => {
                    if let Some(end) = self.hear(incoming?).await? {
                        return Ok(end);
                    }
                }
                Event::Client(frame) => self.hear_client(frame).await?,
                Event::Attach(io) => self.attach(io),
                Event::Cancel => {
                    self.stopping = true;
                    self.writer
                        .say(&ToGuest::Stop {
                            grace_ms: limits::GRACE_MS,
                        })
                        .await?;
                }
                Event::Reported(stream, result) => {
                    self.reported(stream, &result)?;
                    // What has gathered meanwhile need not wait for the next tick.
                    if result.is_ok() && self.much_waits() {
                        self.begin_report()?;
                    }
                }
                Event::Flush => self.begin_report()?,
            }
        }
    }

    async fn event(
        &mut self,
        attach: &mut mpsc::Receiver<api::attach::LinkOpen>,
        flush: &mut tokio::time::Interval,
    ) -> Event {
        let hungry = self.pending.is_empty() && self.client.is_some();
        let report = async {
            match &mut self.report {
                Some(report) => report.await,
                None => std::future::pending().await,
            }
        };
        let client = async {
            match &mut self.client {
                Some(client) if hungry => client.input.recv().await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            incoming = self.reader.next() => Event::Guest(incoming),
            frame = client => Event::Client(frame),
            Some(open) = attach.recv() => Event::Attach(open.io),
            () = self.cancel.cancelled(), if !self.stopping => Event::Cancel,
            (stream, result) = report => Event::Reported(stream, result),
            _ = flush.tick() => Event::Flush,
        }
    }

    async fn hear(&mut self, incoming: Incoming) -> Result<Option<End>, PumpError> {
        match incoming {
            Incoming::Output(stream, bytes) => self.keep(stream, bytes).await?,
            Incoming::Message(FromGuest::Exited(exited)) => {
                self.let_go().await?;
                return Ok(Some(End::Exited(exited)));
            }
            Incoming::Message(FromGuest::Started {
                failure: Some(failure),
            }) => {
                return Ok(Some(End::NotStarted(failure)));
            }
            Incoming::Message(FromGuest::Started { failure: None }) => {
                self.tell(FrameKind::Started, Bytes::new()).await;
            }
            Incoming::Message(FromGuest::StdinAck { offset }) => {
                self.taken = offset.min(self.sent);
                self.feed().await?;
            }
            // Nothing was asked that these would answer.
            Incoming::Message(_) | Incoming::File(_) => {}
        }
        Ok(None)
    }

    async fn keep(&mut self, stream: Stream, bytes: Bytes) -> Result<(), PumpError> {
        let (spool, kind) = match stream {
            Stream::Stdout => (&mut self.stdout, FrameKind::Stdout),
            Stream::Stderr => (&mut self.stderr, FrameKind::Stderr),
        };
        let bytes = match (&mut self.cleaners, stream) {
            (None, _) => {
                spool.append(&bytes).map_err(PumpError::Spool)?;
                bytes
            }
            (Some((cleaner, _)), Stream::Stdout) | (Some((_, cleaner)), Stream::Stderr) => {
                cleaned(spool, cleaner, &bytes).map_err(PumpError::Spool)?
            }
        };
        let offset = spool.taken();
        if !bytes.is_empty() {
            self.tell(kind, bytes).await;
        }
        Ok(self.writer.say(&ToGuest::Ack { stream, offset }).await?)
    }

    /// What was held back, because it could have been the beginning of a value, is told at the end.
    async fn let_go(&mut self) -> Result<(), PumpError> {
        let Some((mut out, mut err)) = self.cleaners.take() else {
            return Ok(());
        };
        for (cleaner, stream) in [(&mut out, Stream::Stdout), (&mut err, Stream::Stderr)] {
            let (spool, kind) = match stream {
                Stream::Stdout => (&mut self.stdout, FrameKind::Stdout),
                Stream::Stderr => (&mut self.stderr, FrameKind::Stderr),
            };
            let taken = spool.taken() + cleaner.pending() as u64;
            let bytes = Bytes::from(cleaner.finish());
            spool.patterns_found = cleaner.found();
            spool.append_for(&bytes, taken).map_err(PumpError::Spool)?;
            if !bytes.is_empty() {
                self.tell(kind, bytes).await;
            }
            if cleaner.found() > 0 {
                let (job, found) = (&self.lease.job_id, cleaner.found());
                tracing::info!(
                    job.id = job,
                    ?stream,
                    found,
                    "credentials were taken out of output"
                );
            }
        }
        Ok(())
    }

    /// Passes something on to the client that is attached. One that does not read holds the command up;
    /// when the job is to end, it is let go instead.
    async fn tell(&mut self, kind: FrameKind, bytes: Bytes) {
        let Some(client) = &self.client else { return };
        let sent = tokio::select! {
            sent = client.output.send((kind, bytes)) => sent.is_ok(),
            () = self.cancel.cancelled() => false,
        };
        if !sent {
            self.client = None;
        }
    }

    async fn hear_client(&mut self, frame: Option<Frame>) -> Result<(), PumpError> {
        match frame {
            Some(Frame {
                kind: FrameKind::Stdin,
                payload,
            }) => {
                self.pending = payload;
                self.feed().await
            }
            Some(Frame {
                kind: FrameKind::Signal,
                payload,
            }) => {
                let signal = payload
                    .first_chunk::<4>()
                    .map(|bytes| u32::from_le_bytes(*bytes));
                // 64 is the last real-time signal, see signal(7); 0 only asks.
                let signal = signal
                    .filter(|n| (1..=64).contains(n))
                    .and_then(|n| i32::try_from(n).ok());
                match signal {
                    Some(signal) => Ok(self.writer.say(&ToGuest::Signal(signal)).await?),
                    None => Ok(()),
                }
            }
            Some(Frame {
                kind: FrameKind::StdinEof,
                ..
            }) => Ok(self.writer.say(&ToGuest::StdinEnd).await?),
            Some(_) => Ok(()),
            None => {
                // The client is gone, and with it whatever else it would have sent.
                self.client = None;
                Ok(self.writer.say(&ToGuest::StdinEnd).await?)
            }
        }
    }

    /// Sends as much of the pending input as the guest has room for.
    async fn feed(&mut self) -> Result<(), PumpError> {
        let room = (WINDOW as u64).saturating_sub(self.sent - self.taken);
        let n = usize::try_from(room).unwrap_or(0).min(self.pending.len());
        if n > 0 {
            let now = self.pending.split_to(n);
            self.writer.stdin(&now).await?;
            self.sent += n as u64;
        }
        Ok(())
    }

    /// Begins to report a piece of output, unless one is on its way. The streams take turns.
    fn begin_report(&mut self) -> Result<(), PumpError> {
        if self.report.is_some() {
            return Ok(());
        }
        let mut streams = [
            (StreamName::Stdout, &mut self.stdout),
            (StreamName::Stderr, &mut self.stderr),
        ];
        if self.reported_last == Some(StreamName::Stdout) {
            streams.reverse();
        }
        for (stream, spool) in streams {
            let piece = spool
                .unreported(limits::OUTPUT_SEGMENT_BYTES)
                .map_err(PumpError::Spool)?;
            if let Some(piece) = piece {
                let segments = vec![OutputSegment::new(stream, piece.offset, &piece.bytes)];
                let (api, lease) = (self.api.clone(), self.lease.clone());
                self.report = Some(report(api, lease, stream, segments));
                return Ok(());
            }
        }
        Ok(())
    }

    /// So much waits that a report of it is worth its while.
    fn much_waits(&self) -> bool {
        let enough = |spool: &Spool| spool.waiting() >= limits::OUTPUT_SEGMENT_BYTES as u64;
        enough(&self.stdout) || enough(&self.stderr)
    }

    fn reported(
        &mut self,
        stream: StreamName,
        result: &Result<(), ClientError>,
    ) -> Result<(), PumpError> {
        self.report = None;
        self.reported_last = Some(stream);
        if let Err(error) = result {
            // It stays in the spool, and the next tick tries again.
            tracing::debug!(%error, job.id = self.lease.job_id, "failed to report output");
            return Ok(());
        }
        let spool = match stream {
            StreamName::Stdout => &mut self.stdout,
            StreamName::Stderr => &mut self.stderr,
        };
        spool.reported().map_err(PumpError::Spool)
    }

    /// Tells the client that all is over, and waits until a report that is on its way has arrived.
    pub(crate) async fn end(&mut self) -> Result<(), PumpError> {
        self.tell(FrameKind::Ended, Bytes::new()).await;
        self.client = None;
        if let Some(report) = self.report.take() {
            let (stream, result) = report.await;
            self.reported(stream, &result)?;
        }
        Ok(())
    }
}

/// Keeps what of the next bytes is no secret. If we die after it, the guest sends again what is pending.
fn cleaned(spool: &mut Spool, cleaner: &mut Cleaner, bytes: &Bytes) -> std::io::Result<Bytes> {
    let end = spool.taken() + (cleaner.pending() + bytes.len()) as u64;
    let clean = Bytes::from(cleaner.feed(bytes));
    spool.append_for(&clean, end - cleaner.pending() as u64)?;
    Ok(clean)
}

fn report(api: Client, lease: Lease, stream: StreamName, segments: Vec<OutputSegment>) -> Report {
    Box::pin(async move {
        let output = JobOutput {
            epoch: lease.epoch,
            attempt: lease.attempt,
            segments,
        };
        (
            stream,
            api.node_job_output(&lease.job_id, &output).await.map(drop),
        )
    })
}

async fn write_to_client(
    mut to: tokio::io::WriteHalf<DuplexStream>,
    mut frames: mpsc::Receiver<(FrameKind, Bytes)>,
) {
    while let Some((kind, bytes)) = frames.recv().await {
        if write_frame(&mut to, kind, &bytes).await.is_err() {
            return; // The pump finds out when it has the next frame.
        }
    }
    // Everything is written; closing tells the client so.
    drop(to.shutdown().await);
}

async fn read_from_client(
    mut from: FrameReader<tokio::io::ReadHalf<DuplexStream>>,
    tell: mpsc::Sender<Frame>,
) {
    while let Ok(Some(frame)) = from.next().await {
        if tell.send(frame).await.is_err() {
            return;
        }
    }
}
