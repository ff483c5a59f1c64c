//! A root that can be written, put together by a sandbox's first process in its own namespaces.
//!
//! Below is what the launcher hands over, with ids of this sandbox; above is the sandbox's own storage,
//! which nobody inside can reach but through the overlays: it stays behind with the old root.

use crate::files::{group, owner};
use crate::mount::{self, Recursive, Written, failed};
use crate::sandbox;
use jail::message::Failure;
use jail::plan::{Data, Root, Sandbox};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};

/// What the launcher hands over with its go: what is below, then the layers, the newest first.
pub(crate) fn of_launcher(
    root: &Root,
    userns: &OwnedFd,
    layers: &[OwnedFd],
) -> Result<OwnedFd, Failure> {
    let lower = mount::copy(&*root.lower, Recursive::Yes).map_err(failed("copy", &root.lower))?;
    mount::map_ids(&lower, userns, Written::No).map_err(failed("map ids of", &root.lower))?;
    for layer in layers {
        mount::map_ids(layer, userns, Written::No).map_err(failed("map ids of", "a layer"))?;
    }
    Ok(lower)
}

/// Puts the new root together at `root.target`. Gives the storage.
pub(crate) fn lay(sandbox: &Sandbox, root: &Root, handed: &[OwnedFd]) -> Result<OwnedFd, Failure> {
    let Some((lower, others)) = handed.split_first() else {
        return Err(failed("layers", "")(Errno::BADF));
    };
    let written = sandbox.volumes.len() + usize::from(sandbox.data.is_handed);
    let split = others.len().checked_sub(written);
    let (layers, written) =
        others.split_at(split.ok_or_else(|| failed("volumes", "")(Errno::BADF))?);
    let (volumes, storage) = written.split_at(sandbox.volumes.len());
    mount::attach(lower, CWD, &*root.mapped).map_err(failed("mount", &root.mapped))?;
    for (at, layer) in layers.iter().enumerate() {
        let at = format!("{}/{at}", root.layers);
        mount::attach(layer, CWD, &*at).map_err(failed("mount", &at))?;
    }
    let data = &sandbox.data;
    let fs = sandbox::make_data(sandbox, storage.first())?;
    for overlay in &root.overlays {
        let each = (0..layers.len()).map(|at| format!("{}/{at}/{}", root.layers, overlay.name));
        let mut below: Vec<String> = each.filter(|path| is_directory(path)).collect();
        below.extend(overlay.lower.iter().cloned());
        let target = within(root, &overlay.target)?;
        let storage = format!("{}/{}", data.target, overlay.name);
        mount::overlay(&below, &storage, &target).map_err(failed("overlay", &overlay.target))?;
    }
    for (from, to) in &root.binds {
        mount::bind_all(from, &within(root, to)?).map_err(failed("bind", to))?;
    }
    show_places(data, root)?;
    for (target, volume) in sandbox.volumes.iter().zip(volumes) {
        make_directories(root, target)?;
        mount::attach(volume, CWD, within(root, target)?).map_err(failed("mount", target))?;
    }
    Ok(fs)
}

/// Makes the directories on the way to a place in the new root, each of the owner of the one above it.
fn make_directories(root: &Root, path: &str) -> Result<(), Failure> {
    let mut ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at).skip(1).collect();
    ends.push(path.len());
    let mut above = "";
    for end in ends {
        let so_far = path.get(..end).unwrap_or_default();
        let place = within(root, above)?;
        let name = so_far.rsplit('/').next().unwrap_or_default();
        let made = format!("{place}/{name}");
        match rustix::fs::mkdir(&made, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                let stat = rustix::fs::stat(&place).map_err(failed("look at", above))?;
                let (uid, gid) = (owner(stat.st_uid), group(stat.st_gid));
                rustix::fs::chown(&made, uid, gid).map_err(failed("chown", so_far))?;
            }
            // It is there; what it is, the next look tells.
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed("mkdir", so_far)(errno)),
        }
        above = so_far;
    }
    Ok(())
}

fn show_places(data: &Data, root: &Root) -> Result<(), Failure> {
    for place in &data.places {
        if let Some(target) = &place.target {
            let source = format!("{}/{}", data.target, place.name);
            mount::bind(&source, &within(root, target)?).map_err(failed("bind", target))?;
        }
    }
    Ok(())
}

fn is_directory(path: &str) -> bool {
    rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| crate::files::kind(&stat) == rustix::fs::FileType::Directory)
}

/// A path in the new root, which layers of a workload may have filled with links: none is followed. What
/// was looked at stays as it is, because nothing else runs here yet.
fn within(root: &Root, path: &str) -> Result<String, Failure> {
    let relative = path.trim_start_matches('/');
    if relative.is_empty() {
        return Ok(root.target.clone());
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::open(&*root.target, flags, Mode::empty());
    let top = top.map_err(failed("open", &root.target))?;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(top.as_fd(), relative, flags, Mode::empty(), beneath)
        .map_err(failed("find", path))?;
    Ok(format!("{}/{relative}", root.target))
}

/// Does once what a sandbox will do: writes into the lower layers, and has what it removed stay so.
pub(crate) fn try_out(root: &Root) -> Result<(), Failure> {
    let path = |below: &str| format!("{}{below}", root.target);
    let mode = Mode::from_raw_mode(0o755);
    let stat = rustix::fs::stat(path("/usr")).map_err(failed("look at", "/usr"))?;
    if stat.st_uid != 0 {
        return Err(failed("own", "/usr")(Errno::PERM));
    }
    rustix::fs::mkdir(path("/usr/.tried"), mode).map_err(failed("write", "/usr"))?;
    rustix::fs::unlink(path("/etc/here")).map_err(failed("remove", "/etc/here"))?;
    rustix::fs::rmdir(path("/etc")).map_err(failed("remove", "/etc"))?;
    rustix::fs::mkdir(path("/etc"), mode).map_err(failed("make again", "/etc"))?;
    match rustix::fs::stat(path("/etc/here")) {
        Err(Errno::NOENT) => Ok(()),
        _ => Err(failed("hide", "/etc/here")(Errno::EXIST)),
    }
}
