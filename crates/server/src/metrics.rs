//! What the doors count, as Prometheus text.
//!
//! Labels are bounded: routes are the templates, not the paths, and a path that matches no route
//! is one label, so that a scanner cannot make the server remember its guesses.

use std::sync::Arc;

use axum::extract::MatchedPath;
use axum::response::Response;
use http::Method;
use model::quota::Limit;
use model::rate::Class;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use service::QuotaSeen;
use tokio::time::Instant;

/// From 100 µs, which a read takes, by factors of three, to a minute, which a wait may take.
const BUCKETS_S: [f64; 13] = [
    0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    method: String,
    route: String,
    status: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfClass {
    class: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLimit {
    limit: &'static str,
}

/// Of the first hundred tenants with a quota; the service sees to that.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfQuota {
    tenant: String,
    limit: &'static str,
}

/// The counters. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    registry: Arc<Registry>,
    requests: Family<Request, Counter>,
    durations: Family<Route, Histogram>,
    connections: Gauge,
    attached: Gauge,
    rate_limited: Family<OfClass, Counter>,
    quota_refused: Family<OfLimit, Gauge>,
    quota_used: Family<OfQuota, Gauge>,
    quota_most: Family<OfQuota, Gauge>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("cofferdam");
        let requests = Family::<Request, Counter>::default();
        let durations =
            Family::<Route, Histogram>::new_with_constructor(|| Histogram::new(BUCKETS_S));
        let connections = Gauge::default();
        let attached = Gauge::default();
        registry.register("http_requests", "Requests answered", requests.clone());
        let help = "Time from the head of a request to the head of its answer";
        registry.register("http_request_duration_seconds", help, durations.clone());
        registry.register("http_connections", "Open connections", connections.clone());
        registry.register(
            "attached_streams",
            "Clients attached to jobs",
            attached.clone(),
        );
        let rate_limited = Family::<OfClass, Counter>::default();
        let quota_refused = Family::<OfLimit, Gauge>::default();
        let quota_used = Family::<OfQuota, Gauge>::default();
        let quota_most = Family::<OfQuota, Gauge>::default();
        let help = "Requests refused because of a rate";
        registry.register("rate_limited", help, rate_limited.clone());
        let help = "What was refused because of a quota";
        registry.register("quota_refused", help, quota_refused.clone());
        let help = "What tenants with a quota have";
        registry.register("quota_used", help, quota_used.clone());
        let help = "What tenants with a quota may have";
        registry.register("quota_most", help, quota_most.clone());
        Self {
            registry: Arc::new(registry),
            requests,
            durations,
            connections,
            attached,
            rate_limited,
            quota_refused,
            quota_used,
            quota_most,
        }
    }

    /// A request was refused because of a rate.
    pub(crate) fn rate_limited(&self, class: Class) {
        let class = class.as_str();
        self.rate_limited.get_or_create(&OfClass { class }).inc();
    }

    /// What there is of quotas, and what was refused because of them so far.
    pub(crate) fn quotas(&self, seen: &[QuotaSeen], refused: &[(Limit, u64)]) {
        let shown = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
        for (limit, count) in refused {
            let limit = limit.as_str();
            let gauge = self.quota_refused.get_or_create(&OfLimit { limit });
            gauge.set(shown(*count));
        }
        self.quota_used.clear();
        self.quota_most.clear();
        for one in seen {
            for (limit, most) in &one.row.most {
                let of = OfQuota {
                    tenant: one.row.tenant.to_string(),
                    limit: limit.as_str(),
                };
                let used = one.used.get(limit).copied().unwrap_or_default();
                self.quota_used.get_or_create(&of).set(shown(used));
                self.quota_most.get_or_create(&of).set(shown(*most));
            }
        }
    }

    /// Starts to measure a request.
    pub(crate) fn start(&self, method: &Method) -> Timer {
        // Anything may stand where the method stands; only what HTTP defines becomes a label.
        let known = matches!(
            *method,
            Method::GET | Method::POST | Method::PUT | Method::DELETE | Method::HEAD
        );
        let method = if known { method.as_str() } else { "other" };
        Timer {
            metrics: self.clone(),
            method: method.to_owned(),
            since: Instant::now(),
        }
    }

    /// Counts a connection until the guard is dropped.
    pub(crate) fn connection(&self) -> Counted {
        Counted::new(&self.connections)
    }

    /// Counts an attached client until the guard is dropped.
    pub(crate) fn attached(&self) -> Counted {
        Counted::new(&self.attached)
    }

    /// Everything as text.
    pub(crate) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// One more of something, while this lives.
#[derive(Debug)]
pub(crate) struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(crate) struct Timer {
    metrics: Metrics,
    method: String,
    since: Instant,
}

impl Timer {
    /// The head of the answer is there.
    pub(crate) fn stop(self, response: &Response) {
        let route = response
            .extensions()
            .get::<MatchedPath>()
            .map_or("none", MatchedPath::as_str);
        let route = route.to_owned();
        let took = self.since.elapsed().as_secs_f64();
        self.metrics
            .durations
            .get_or_create(&Route {
                route: route.clone(),
            })
            .observe(took);
        let status = u32::from(response.status().as_u16());
        let request = Request {
            method: self.method,
            route,
            status,
        };
        self.metrics.requests.get_or_create(&request).inc();
    }
}
