//! Named points at which a test may stop the process.

use std::fmt;
use std::sync::Arc;

/// What happens at a point: nothing, or what a test has put there.
///
/// Durable code names the lines between which it may die; the test that proves it kills the process at
/// each of them in turn. In production there is no hook.
#[derive(Clone, Default)]
pub struct Points {
    hook: Option<Arc<dyn Fn(&'static str) + Send + Sync>>,
}

impl Points {
    /// Points at which nothing happens.
    pub fn none() -> Points {
        Points::default()
    }

    /// Points that call `hook` with their name.
    pub fn with(hook: impl Fn(&'static str) + Send + Sync + 'static) -> Points {
        Points {
            hook: Some(Arc::new(hook)),
        }
    }

    /// The process is at this point.
    pub fn at(&self, name: &'static str) {
        if let Some(hook) = &self.hook {
            hook(name);
        }
    }
}

impl fmt::Debug for Points {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.hook.is_some() {
            "Points(hooked)"
        } else {
            "Points"
        })
    }
}
