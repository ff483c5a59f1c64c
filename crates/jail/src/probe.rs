//! Whether this kernel, with the host's file systems, can give a sandbox a root that can be written: found
//! out by doing it once, because versions and configurations lie.

use crate::mount::failed;
use crate::{sandbox, spawner, sys, tree};
use jail::message::{self, Failure};
use jail::plan::{Sandbox, Tree};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use std::os::fd::OwnedFd;

/// Builds the tree, which this process then is in, and a sandbox's root in a child that ends with it.
pub(crate) fn try_once(tree: &Tree, sandbox: &Sandbox, program: &OwnedFd) -> Result<(), Failure> {
    tree::enter(tree, program)?;
    let pipe = rustix::pipe::pipe_with(PipeFlags::CLOEXEC);
    let (said, say) = pipe.map_err(failed("pipe", ""))?;
    let (go, wait) = spawner::pair().map_err(failed("pair", ""))?;
    let Some((pid, _pidfd)) = sys::fork_into(sys::NAMESPACES).map_err(failed("clone", ""))? else {
        drop(go);
        let tried = sandbox::probe(sandbox, &wait);
        let bytes = message::encode(&tried).unwrap_or_default();
        let _ = rustix::io::write(&say, &bytes);
        sys::exit_now(0)
    };
    drop((wait, say));
    let handed = spawner::Handed {
        layers: &[],
        written: &[],
    };
    spawner::let_go(pid, sandbox, &go, handed)?;
    let mut bytes = [0; 1024];
    let n = rustix::io::read(&said, &mut bytes).map_err(failed("read", ""))?;
    message::decode(bytes.get(..n).unwrap_or_default())
        .unwrap_or_else(|| Err(failed("probe", "")(Errno::PROTO)))
}
