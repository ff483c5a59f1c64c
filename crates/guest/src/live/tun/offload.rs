//! What the kernel need not do for packets that nobody else will see.

use std::os::fd::{AsRawFd as _, OwnedFd};

/// Lets the kernel leave out the sums of TCP and UDP in what programs send: over 64 KiB of a packet they cost as much
/// as a copy, and what reads them here believes no packet and looks at no sum. Where it does not want to, it goes on
/// making them.
#[expect(unsafe_code, reason = "an ioctl on a device file")]
pub(super) fn leave_out_sums(device: &OwnedFd) {
    let what = libc::c_ulong::from(libc::TUN_F_CSUM);
    // SAFETY: TUNSETOFFLOAD takes an integer, and nothing of this process's memory.
    // JUSTIFICATION: there is no safe way to ask a TUN device for it.
    let _ = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETOFFLOAD, what) };
}
